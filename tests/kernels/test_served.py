"""Served shapes: they meet what small calls do not, and rows are judged everywhere in a long batch."""

from dataclasses import replace

import pytest
import torch

from gaugeblock.conformance.kernels.served import DRAWN, EDGES, sampled_rows, served_cases
from gaugeblock.conformance.kernels.test_ker_024_served_shapes import test_ker_024 as served_shapes
from gaugeblock.fixtures.targets.kernels import KernelTarget, load_kernels
from gaugeblock.kernels import _ln_linear_tiles, add_rmsnorm
from gaugeblock.kernels.contract import load_contracts
from gaugeblock.kernels.runtime import DEVICE, INTERPRETED

OPS = load_contracts()


@pytest.mark.parametrize("name", OPS)
def test_every_op_has_served_shapes_in_each_dtype_or_in_turn(name):
    op = OPS[name]
    cases = list(served_cases(load_kernels(None), op))
    forms = 2 if op.served else 1
    assert len(cases) == forms * len(op.shapes) * (1 if INTERPRETED else len(op.dtypes))
    assert cases[0].dtype == (op.dtypes[-1] if INTERPRETED else op.dtypes[0])


def test_rows_of_a_long_batch_are_judged_at_both_ends_at_edges_and_in_between():
    op = OPS["silu_and_mul"]
    case = op.make(1100, 8, torch.float32, 1)
    parts = list(sampled_rows(op, case))
    assert [(where.start, where.stop) for _, where in parts[:3]] == [(0, 48), (526, 574), (1052, 1100)]
    assert [(where.start, where.stop) for _, where in parts[3:6]] == [(edge - 1, edge + 1) for edge in EDGES]
    assert len(parts) == 6 + DRAWN
    for part, where in parts:
        assert torch.equal(part.inputs["x"], case.inputs["x"][where])


def test_a_short_batch_is_judged_whole():
    op = OPS["silu_and_mul"]
    parts = list(sampled_rows(op, op.make(129, 8, torch.float32, 1)))
    assert [(where.start, where.stop) for _, where in parts] == [(0, 129)]


@pytest.mark.parametrize("row", [0, 1023, 4096])
def test_a_wrong_row_of_a_long_batch_is_found(row):
    op = replace(OPS["softmax"], shapes=({"rows": 4097, "size": 8},))

    def wrong(x, *, out=None):
        result = op.eager(x)
        if len(x) > row:
            result[row] = 0.5
        return result

    with pytest.raises(AssertionError, match=r"4097×8 .* out of bound"):
        served_shapes(KernelTarget("wrong", {op.name: wrong}, DEVICE), op, lambda name, value: None)


@pytest.mark.skipif(not INTERPRETED, reason="there by what the card has")
def test_rows_without_masks_and_more_tiles_than_programs_are_met(monkeypatch):
    whole, bulk = [], []
    kernel, launch = add_rmsnorm._add_rmsnorm_kernel, _ln_linear_tiles._launch_bulk

    class Watched:
        def __getitem__(self, grid):
            return lambda *args, **named: (whole.append(named["WHOLE"]), kernel[grid](*args, **named))

    def watched(x, weight, bias, out, activation, config):
        bulk.append(-(-len(x) // config.block_m) * -(-len(weight) // config.block_n))
        launch(x, weight, bias, out, activation, config)

    monkeypatch.setattr(add_rmsnorm, "_add_rmsnorm_kernel", Watched())
    monkeypatch.setattr(_ln_linear_tiles, "_launch_bulk", watched)
    for name in ("add_rmsnorm", "ln_linear"):
        served_shapes(load_kernels(None), OPS[name], lambda name, value: None)
    assert True in whole
    assert max(bulk) > 4  # programs in the interpreter
