"""An op against its budget: by made-up times, and by counted bytes."""

import re

import pytest
import torch

from gaugeblock.conformance.bench.budgets import Budget, Term, load_budgets
from gaugeblock.conformance.bench.holding import budgeted, hold_to_bytes, hold_to_times
from gaugeblock.fixtures.targets.kernels import KernelTarget
from gaugeblock.kernels.contract import load_contracts

from .made_up import Timer, small_workloads

SOFTMAX = load_contracts()["softmax"]
SHAPES = tuple(small_workloads("softmax"))
BUDGET = Budget(Term("r", at_least=0.5), None, 0.03, "made up")


def held(times, function=SOFTMAX.kernel):
    """Hold a softmax; a copy takes 10⁷ µs, so that R is 1 where the kernel takes as long for as many bytes."""
    name = f"{function.__module__}.{function.__name__}"
    timer = Timer(lambda called: times() if called == name else 1e7 if called.endswith("copy_") else None)
    target = KernelTarget("made_up", {"softmax": function}, "cpu")
    return hold_to_times(target, SOFTMAX, {SHAPES[0].name: BUDGET}, timer, "cpu", SHAPES)


def zeros(x):
    return torch.zeros_like(x)


def broken(x):
    raise RuntimeError("out of registers")


def at(share):
    """Return the µs at which the small shape has this R."""
    return 2 * 4 * 64 * 2 / (2 * 2**30 / 1e7) / share


def test_fast_enough_is_met():
    found = held(lambda: at(0.9))
    assert found.wrong == found.over == found.noisy == []
    assert found.evidence[0]["value"] == pytest.approx(0.9)


def test_twice_the_time_is_over():
    assert held(lambda: at(0.45)).over == ["softmax 4096×32000: R ≥ 0.5, measured 0.450"]


def test_noise_is_neither():
    rounds = iter([0.6, 0.7, 0.45])
    found = held(lambda: at(next(rounds)))
    assert found.over == []
    assert "between rounds" in found.noisy[0]


@pytest.mark.parametrize("share", [0.9, 1.9])
def test_fast_and_wrong_is_wrong_even_where_no_time_could_be_as_short(share):
    found = held(lambda: at(share), zeros)
    assert re.fullmatch(r"softmax 4096×32000: wrong result, [1-9]\d\d[.\d]* of its error budget", found.wrong[0])
    assert found.evidence[0]["verdict"] == "not judged"


def test_what_raises_at_a_timed_shape_is_wrong_not_noisy():
    assert held(lambda: at(0.9), broken).wrong == ["softmax 4096×32000: RuntimeError: out of registers"]


def test_only_shapes_with_a_budget_are_timed():
    assert len(held(lambda: at(0.9)).evidence) == 1
    assert [w.label for w in budgeted(SOFTMAX, {SHAPES[1].name: BUDGET})] == ["1024×128256"]


def bytes_of(function, name="made_up"):
    return hold_to_bytes(KernelTarget(name, {"softmax": function}, "cpu"), SOFTMAX, budgets()["softmax"])


def budgets():
    return load_budgets("Triton's interpreter")


def test_a_second_launch_is_over_the_budget_of_bytes():
    def twice(x):
        SOFTMAX.kernel(x)
        return SOFTMAX.kernel(x)

    assert "measured 2.000" in bytes_of(twice).over[0]


def test_few_bytes_are_no_merit_of_a_wrong_result():
    found = bytes_of(lambda x: SOFTMAX.kernel(x) * 1.1)
    assert "wrong result" in found.wrong[0]
    assert found.wrong[0].startswith("softmax 8×1000")
    assert bytes_of(SOFTMAX.kernel).wrong == []


def test_zeros_that_no_kernel_wrote_are_wrong_in_the_reference():
    assert bytes_of(zeros, "gaugeblock.kernels").wrong


def test_a_hidden_copy_is_over_the_budget_of_bytes():
    assert "measured 2.000" in bytes_of(lambda x: SOFTMAX.kernel(x.clone())).over[0]


def test_what_runs_no_triton_kernel_cannot_be_counted():
    found = bytes_of(lambda x: torch.softmax(x, -1))
    assert found.evidence == []
    assert "can't be counted" in found.uncounted
