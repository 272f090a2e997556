"""The workers of a GPU run, here with the interpreter: results, faults, and a worker that doesn't answer."""

import sys
import time
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def pool(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import gpu_pool

    yield gpu_pool
    for name in ("gpu_pool", "on_gpu"):
        sys.modules.pop(name, None)


def run(pool, *tasks, seconds=100.0):
    found = []
    pool.run_all(tasks, 1, time.monotonic() + seconds, found.append)
    return {(result["check"], result["fault"]): (result["outcome"], result["message"]) for result in found}


@pytest.mark.slow
def test_a_check_a_fault_and_a_worker_that_does_not_answer(pool):
    fault = "kernels-silu-zeros"
    found = run(
        pool,
        pool.Task("suite", None, "KER-002", ("silu_and_mul",), 1e-3),
        pool.Task("suite", None, "KER-001", ("silu_and_mul",), 60.0),
        pool.Task("mutants", None, "KER-001", ("silu_and_mul",), 60.0, fault, "constant"),
        pool.Task("mutants", None, "KER-003", ("add_rmsnorm",), 60.0, fault, "no such message"),
        pool.Task("compile", None, pool.COMPILE, ("softmax",), 60.0, piece=0),
    )
    assert found["KER-002", None][0] == "broken"
    assert found["KER-001", None] == ("passed", "")
    assert found["KER-001", fault][0] == "named"
    assert found["KER-003", fault][0] == "survived"
    assert found[pool.COMPILE, None] == ("passed", "")


def test_tasks_after_the_deadline_are_not_run(pool):
    found = run(pool, pool.Task("suite", None, "KER-001", ("silu_and_mul",), 60.0), seconds=-1.0)
    assert found["KER-001", None] == ("not run", "the step's time was up")


def test_of_several_errors_the_first_is_told(pool, monkeypatch):
    from gaugeblock.conformance.kernels import test_ker_001_smoke

    def raises(**_):
        raise ExceptionGroup("inconsistent results", [ExceptionGroup("a test", [RuntimeError("misaligned address")])])

    raises.gaugeblock_check = test_ker_001_smoke.test_ker_001.gaugeblock_check
    monkeypatch.setattr(test_ker_001_smoke, "test_ker_001", raises)
    task = pool.Task("suite", None, "KER-001", ("silu_and_mul",), 60.0)
    assert pool.one(task, "silu_and_mul") == ("error", "RuntimeError: misaligned address")


def test_only_the_checks_that_are_asked_for_are_run(pool, monkeypatch, tmp_path):
    import on_gpu

    ran = []
    monkeypatch.setattr(on_gpu, "run_all", lambda tasks, *_: ran.extend(tasks))
    monkeypatch.setattr(sys, "argv", ["on_gpu.py", "suite", "mutants", "--check", "KER-023", "--out", str(tmp_path)])
    on_gpu.main()
    assert {task.check for task in ran} == {"KER-023"}
    assert {task.step for task in ran} == {"suite", "mutants"}
