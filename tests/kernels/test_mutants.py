"""Every planted fault of the kernels layer is killed by the check that it names, with its message."""

import importlib
import inspect
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from gaugeblock.conformance.check import load_checks
from gaugeblock.conformance.kernel_fixtures import concerns
from gaugeblock.conformance.outcome import NotRun
from gaugeblock.fixtures.errors import KitError
from gaugeblock.fixtures.faults import record
from gaugeblock.fixtures.faults.record import load_faults, planted
from gaugeblock.fixtures.mutate import edit
from gaugeblock.fixtures.needs import lacking
from gaugeblock.fixtures.targets.kernels import load_kernels, op_of
from gaugeblock.kernels import silu_and_mul, softmax
from gaugeblock.kernels.contract import load_contracts

FAULTS = [fault for fault in load_faults().values() if fault.layer == "kernels"]
CHECKS = load_checks(("kernels",))[0]
HERE = [fault for fault in FAULTS if not lacking(fault)]


def failures(check_id, op_name=None):
    """Run a check's function for one op, or every op that it is about; return the messages of those that failed."""
    module = importlib.import_module(CHECKS[check_id].module)
    function = getattr(module, f"test_{check_id.lower().replace('-', '_')}")
    wants_evidence = "record_property" in inspect.signature(function).parameters
    found = []
    for op in load_contracts().values():
        if not concerns(module, op) or op_name not in (None, op.name):
            continue
        evidence = {"record_property": lambda name, value: None} if wants_evidence else {}
        try:
            function(kernels=load_kernels(None), op=op, **evidence)
        except AssertionError as error:
            found.append(str(error))
        except NotRun:
            continue
    return found


@pytest.mark.parametrize("fault", HERE, ids=lambda fault: fault.id)
def test_the_named_check_kills_the_mutant(fault):
    op_name = op_of(fault.id)
    with planted(fault.id):
        messages = failures(fault.check, op_name)
    assert any(fault.message in message for message in messages), messages


@pytest.mark.parametrize("fault", [f for f in HERE if f.check != "KER-001"], ids=lambda fault: fault.id)
def test_the_gate_lets_the_mutant_reach_its_check(fault):
    op_name = op_of(fault.id)
    with planted(fault.id):
        assert failures("KER-001", op_name) == []


@pytest.mark.parametrize("check_id", CHECKS)
@pytest.mark.parametrize("op_name", load_contracts())
def test_the_reference_passes(check_id, op_name):
    assert failures(check_id, op_name) == []


def test_a_mutant_is_run_on_the_op_that_it_changes():
    assert op_of("kernels-rms-order-by-call") == "add_rmsnorm"
    assert op_of("kernels-silu-unmasked-load") == "silu_and_mul"


def test_faults_of_one_kernel_are_planted_one_at_a_time():
    faults = ["kernels-softmax-nan-swallowed", "kernels-softmax-short-reciprocal"] * 50
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(op_of, faults)) == {"softmax"}


def test_a_fault_that_cannot_be_planted_leaves_nothing_behind(monkeypatch):
    kernel = softmax._softmax_kernel
    monkeypatch.setattr(softmax, "_softmax_kernel", edit("scale = 1.0 / total", "scale = 1 / total")(kernel))
    monkeypatch.setattr(record, "find_fault", lambda fault_id: replace(FAULTS[0], apply=_half_a_fault))
    changed = softmax._softmax_kernel
    with pytest.raises(KitError, match="occurs 0 times"), planted(FAULTS[0].id):
        pass
    assert softmax._softmax_kernel is changed
    assert record.active() == ()


def _half_a_fault():
    record.swap(softmax, "_softmax_kernel", edit("scale = 1 / total", "scale = 2 / total"))
    record.swap(softmax, "_softmax_kernel", edit("scale = 1 / total", "scale = 3 / total"))


def test_another_threads_fault_is_waited_for_no_longer_than_the_limit(monkeypatch):
    monkeypatch.setattr(record, "PLANTING_TIMEOUT", 0.01)
    with planted(FAULTS[0].id), ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(op_of, FAULTS[1].id)
        with pytest.raises(KitError, match=f"another thread keeps {FAULTS[0].id}"):
            waiting.result()


def test_every_check_has_a_mutant():
    assert {fault.check for fault in FAULTS if fault.needs is None} == set(CHECKS)


def test_a_mutant_whose_place_is_gone_is_an_error():
    with pytest.raises(KitError, match="0 times in _silu_and_mul_kernel"):
        edit("no such source", "")(silu_and_mul._silu_and_mul_kernel)
