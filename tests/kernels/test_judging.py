"""How a call under hard conditions is judged."""

import math

import pytest
import torch

from gaugeblock.conformance.kernels.judging import judge_beside
from gaugeblock.kernels.silu_and_mul import CONTRACT as OP

CASE = OP.make(3, 32, torch.float16, 1)
RIGHT = OP.oracle(CASE)["out"].to(CASE.dtype)
COARSE = RIGHT * 1.01  # out of bound


def judged(outputs, plain):
    return judge_beside(OP, CASE, {"out": outputs}, {"out": plain}, "inside NaN")["budget_used"]


def test_rounding_that_a_plain_call_has_too_is_not_blamed_on_the_conditions():
    assert judged(COARSE, COARSE) == {}


def test_other_bits_must_be_within_the_bounds():
    assert judged(RIGHT, COARSE)["out"] <= 1
    spoilt = COARSE.clone()
    spoilt[1, 7] = math.nan
    with pytest.raises(AssertionError, match="inside NaN"):
        judged(spoilt, COARSE)


def test_nan_in_the_plain_call_too_is_no_excuse():
    unwritten = COARSE.clone()
    unwritten[1, 7] = math.nan  # old memory, which by chance held NaN then too
    with pytest.raises(AssertionError, match="inside NaN"):
        judged(unwritten, unwritten)
