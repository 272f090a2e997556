"""An op against its budget: by made-up times, and by counted bytes."""

import pytest
import torch

from gaugeblock.conformance.bench.budgets import Budget, Term, load_budgets
from gaugeblock.conformance.bench.holding import budgeted, hold_to_bytes, hold_to_times
from gaugeblock.fixtures.targets.kernels import KernelTarget, load_kernels
from gaugeblock.kernels.contract import load_contracts

from .made_up import Timer, small_workloads

SOFTMAX = load_contracts()["softmax"]
SHAPES = tuple(small_workloads("softmax"))
BUDGET = Budget(Term("r", at_least=0.5), None, 0.03, "made up")


def held(times):
    """Hold softmax; a copy takes 10⁷ µs, so that R is 1 where the kernel takes as long for as many bytes."""
    timer = Timer(lambda name: times() if name.endswith("softmax.softmax") else 1e7 if name.endswith("copy_") else None)
    return hold_to_times(load_kernels(None), SOFTMAX, {SHAPES[0].name: BUDGET}, timer, "cpu", SHAPES)


def at(share):
    """Return the µs at which the small shape has this R."""
    return 2 * 4 * 64 * 2 / (2 * 2**30 / 1e7) / share


def test_fast_enough_is_met():
    found = held(lambda: at(0.9))
    assert found.over == found.noisy == []
    assert found.evidence[0]["value"] == pytest.approx(0.9)


def test_twice_the_time_is_over():
    assert held(lambda: at(0.45)).over == ["softmax 4096×32000: R ≥ 0.5, measured 0.450"]


def test_noise_is_neither():
    rounds = iter([0.6, 0.7, 0.45])
    found = held(lambda: at(next(rounds)))
    assert found.over == []
    assert "between rounds" in found.noisy[0]


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


def test_a_hidden_copy_is_over_the_budget_of_bytes():
    assert "measured 2.000" in bytes_of(lambda x: SOFTMAX.kernel(x.clone())).over[0]


def test_what_runs_no_triton_kernel_cannot_be_counted():
    found = bytes_of(lambda x: torch.softmax(x, -1))
    assert found.evidence == []
    assert "can't be counted" in found.uncounted
