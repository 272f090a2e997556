"""The bound is neither vacuous nor too tight."""

import math

import pytest
import torch

from gaugeblock.kernels.bounds import budget_used, output_bound, sum_depth, ulp
from gaugeblock.kernels.contract import load_contracts

CONTRACTS = {name: op for name, op in load_contracts().items() if not op.integer}
ROUNDED_ONCE = ("add_rmsnorm", "silu_and_mul")  # nothing but the last rounding is larger than fp32's
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
SHAPES = ((3, 63), (2, 1000), (1, 4097))


@pytest.mark.parametrize(
    ("value", "dtype", "spacing"),
    [
        (1.0, torch.float32, 2.0**-23),
        (1.99, torch.float16, 2.0**-10),
        (-2.0, torch.bfloat16, 2.0**-6),
        (0.0, torch.float16, 2.0**-24),
        (1e-7, torch.float16, 2.0**-24),
        (1e-40, torch.float32, 2.0**-149),
        (65504.0, torch.float16, 32.0),
    ],
)
def test_ulp_is_the_spacing_of_the_dtype(value, dtype, spacing):
    assert ulp(torch.tensor(value, dtype=torch.float64), dtype).item() == spacing


@pytest.mark.parametrize("name", CONTRACTS)
def test_the_oracle_rounded_once_is_within_the_bound(name):
    op = CONTRACTS[name]
    for kind in op.kinds:
        for seed in range(2):
            for case in op.some_cases(4, op.sizes.small, seed, kind):
                oracle = op.oracle(case)
                for output, bound in op.bound(case, oracle).items():
                    assert budget_used(oracle[output].to(case.dtype), oracle[output], bound).max() <= 1, case.label


@pytest.mark.parametrize("name", CONTRACTS)
def test_the_bound_is_far_below_the_signal(name):
    """Where zeros, or another row's result, are off by a third of the signal, they are out of bound."""
    op = CONTRACTS[name]
    for case in op.cases(4, op.sizes.long, 30):
        oracle = op.oracle(case)
        for output, bound in op.bound(case, oracle).items():
            for wrong in (torch.zeros_like(oracle[output]), oracle[output].roll(1, 0)):
                outside = budget_used(wrong.to(case.dtype), oracle[output], bound) > 1
                off = (wrong - oracle[output]).abs() > 0.33 * oracle[output].square().mean().sqrt()
                assert off.any(), f"{case.label} {output}"
                assert outside[off].double().mean() > 0.95, f"{case.label} {output}"


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ROUNDED_ONCE)
def test_two_units_off_is_out_of_bound(name, dtype):
    """Two units beyond what the bound allows before rounding; in 16 bits that is two units of any correct result."""
    op = CONTRACTS[name]
    for rows, hidden in SHAPES:
        case = op.make(rows, hidden, dtype, 31, "normal")
        oracle = op.oracle(case)
        for output, bound in op.bound(case, oracle).items():
            right = oracle[output].to(dtype)
            unit = ulp(oracle[output], dtype)
            off = right.double() + 2 * unit + (bound - 0.5 * unit if dtype == torch.float32 else 0)
            wrong = off.to(dtype)
            assert budget_used(wrong, oracle[output], bound).min() > 1


@pytest.mark.parametrize("name", ROUNDED_ONCE)
def test_sixteen_bit_bounds_are_hardly_more_than_the_rounding(name):
    op = CONTRACTS[name]
    for dtype in (torch.float16, torch.bfloat16):
        case = op.make(2, 8192, dtype, 33, "normal")
        oracle = op.oracle(case)
        for output, bound in op.bound(case, oracle).items():
            assert (bound / ulp(oracle[output], dtype)).median() < 0.55


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ROUNDED_ONCE)
def test_a_second_implementation_is_within_the_bound_over_seeds(name, dtype):
    op = CONTRACTS[name]
    for seed in range(20):
        rows, hidden = SHAPES[seed % 3]
        case = op.make(rows, hidden, dtype, 100 + seed, ("normal", "small", "offset", "large")[seed % 4])
        oracle = op.oracle(case)
        second = op.named(in_fp32(case))
        for output, bound in op.bound(case, oracle).items():
            share = budget_used(second[output].to(dtype), oracle[output], bound).max().item()
            assert share <= 1, f"{case.label} {output}: {share}"


def in_fp32(case):
    """Return the op from PyTorch's own ops in fp32, rounded once where the contract rounds."""
    if "weight" not in case.inputs:
        gate, up = case.inputs["x"].float().chunk(2, dim=-1)
        return torch.nn.functional.silu(gate) * up
    total = case.inputs["x"] + case.inputs["residual"]
    weight = case.inputs["weight"].float()
    return torch.nn.functional.rms_norm(total.float(), weight.shape, weight, case.params["eps"]), total


def test_nan_and_infinity_are_never_within():
    oracle = torch.tensor([1.0, 1.0, 1e6, 1e6, -1e6], dtype=torch.float64)
    result = torch.tensor([math.nan, math.inf, math.inf, -math.inf, -math.inf]).half()
    bound = output_bound(oracle, torch.zeros_like(oracle), torch.float16)
    assert budget_used(result, oracle, bound).tolist() == [math.inf, math.inf, 0.0, math.inf, 0.0]


def test_sum_depth_admits_blocked_sums_and_no_serial_one():
    for n, threads in ((4096, 256), (8192, 512), (65536, 1024), (1000, 32)):
        assert sum_depth(n) >= n / threads + math.log2(threads)
    assert sum_depth(4096) < 4096 / 16
