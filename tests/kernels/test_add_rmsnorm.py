"""Add+RMSNorm's two ways to store its results."""

import pytest
import torch

from gaugeblock.kernels import add_rmsnorm as op
from gaugeblock.kernels.runtime import DEVICE


@pytest.mark.parametrize("hidden", [33, 1000])
def test_the_bits_do_not_depend_on_when_the_residual_is_stored(hidden, monkeypatch):
    case = op.make(5, hidden, torch.bfloat16, 1)
    arguments = [tensor.to(DEVICE) for tensor in case.inputs.values()]
    apart = op.add_rmsnorm(*arguments)
    monkeypatch.setattr(op, "TOGETHER_FROM", 0)
    outs = [torch.full_like(result, float("nan")) for result in apart]
    op.add_rmsnorm(*arguments, out=outs[0], residual_out=outs[1])
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(outs, apart, strict=True))
