"""The smoke gate judges what an op writes: whether an element is written at all is KER-006's."""

import math

import pytest
import torch

from gaugeblock.conformance.kernels.test_ker_001_smoke import test_ker_001 as smoke
from gaugeblock.fixtures.targets.kernels import KernelTarget
from gaugeblock.kernels.runtime import DEVICE
from gaugeblock.kernels.silu_and_mul import CONTRACT as OP


def short_of_a_column(x, *, out=None, last=None):
    """The op, its last column left as it is in ``out`` (old memory: NaN by chance) or set to ``last``."""
    whole = OP.eager(x)
    out = torch.full_like(whole, math.nan) if out is None else out
    out[..., :-1] = whole[..., :-1]
    if last is not None:
        out[..., -1] = last
    return out


def run(function):
    smoke(KernelTarget("short", {OP.name: function}, DEVICE), OP)


def test_old_memory_is_not_judged():
    run(short_of_a_column)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_written_is(value):
    with pytest.raises(AssertionError, match="are not finite"):
        run(lambda x, *, out=None: short_of_a_column(x, out=out, last=value))


def test_an_op_without_outputs_to_give_is_judged_as_it_answers():
    with pytest.raises(AssertionError, match="are not finite"):
        run(lambda x: short_of_a_column(x))
