"""Errors against eager's: one draw by chance is forgiven, an error in every draw is not."""

import pytest
import torch

from gaugeblock.conformance.kernels.errors import times_eager
from gaugeblock.conformance.kernels.test_ker_004_no_worse_than_eager import SEED
from gaugeblock.conformance.kernels.test_ker_004_no_worse_than_eager import test_ker_004 as no_worse
from gaugeblock.fixtures.targets.kernels import KernelTarget
from gaugeblock.kernels.runtime import DEVICE
from gaugeblock.kernels.silu_and_mul import CONTRACT as OP


def target(function):
    return KernelTarget("some", {OP.name: function}, DEVICE)


def coarse(x, *, out=None):
    return (OP.eager(x).float() * (1 + 2.0**-6)).to(x.dtype)


def test_eager_is_once_eager():
    case = OP.make(4, 1000, torch.float32, 1)
    assert times_eager(target(lambda x: OP.eager(x)), OP, case) == {"out": {"rmse": 1.0, "maximum": 1.0}}


def test_nothing_against_nothing_is_once_and_something_is_without_end():
    case = OP.make(2, 8, torch.float32, 1, "zeros")
    assert times_eager(target(lambda x: OP.eager(x)), OP, case)["out"] == {"rmse": 1.0, "maximum": 1.0}
    assert times_eager(target(lambda x: OP.eager(x) + 1), OP, case)["out"]["rmse"] == float("inf")


def test_a_single_bad_draw_is_forgiven():
    first = {dtype: OP.make(4, OP.sizes.long, dtype, SEED).inputs["x"].to(DEVICE) for dtype in OP.dtypes}
    bad = []

    def by_chance(x, *, out=None):
        if x.shape == first[x.dtype].shape and torch.equal(x, first[x.dtype]):
            bad.append(x.dtype)
            return coarse(x)
        return OP.eager(x)

    evidence = []
    no_worse(target(by_chance), OP, lambda name, value: evidence.extend(value["cases"]))
    assert set(bad) == set(OP.dtypes)
    assert {case["draws"] for case in evidence} == {5}


def test_an_error_in_every_draw_is_not():
    with pytest.raises(AssertionError, match=r"of 5 draws the median rmse of out is .* × eager's, 1.5 allowed"):
        no_worse(target(coarse), OP, lambda name, value: None)


def test_a_result_that_is_not_finite_is_not_forgiven_in_any_draw():
    first = {dtype: OP.make(4, OP.sizes.long, dtype, SEED).inputs["x"].to(DEVICE) for dtype in OP.dtypes}

    def once_nan(x, *, out=None):
        result = OP.eager(x)
        if torch.equal(x, first[x.dtype]):
            result[0, 0] = float("nan")
        return result

    with pytest.raises(AssertionError, match=r"of 5 draws the median rmse of out is inf × eager's"):
        no_worse(target(once_nan), OP, lambda name, value: None)
