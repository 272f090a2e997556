"""Units in the last place, and how much of its error budget a result uses.

Notation: u = 2⁻²⁴ is fp32's unit roundoff (every op accumulates in fp32); γ(k) = k·u/(1 − k·u) bounds k roundings in a
row (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., lemma 3.1).
"""

from __future__ import annotations

import math

import torch

U = 2.0**-24
"""The unit roundoff of fp32."""

TINY = 2.0**-149
"""The smallest positive fp32 number: what one rounding may lose where fp32 underflows."""

_MANTISSA = {torch.float32: 24, torch.float16: 11, torch.bfloat16: 8}  # bits, the hidden one included


def gamma(roundings: float) -> float:
    """Return γ(k), the relative error that ``roundings`` fp32 operations in a row can build up."""
    return roundings * U / (1 - roundings * U)


def sum_depth(n: int) -> int:
    """Return the longest chain of additions that an op's contract allows for a sum of ``n`` terms.

    A blocked sum on T threads has chains of n/T + log₂ T; 2√n + log₂ n admits every T near √n or above and is what
    keeps fp32 results meaningful. One thread that adds a whole row one by one breaks the contract.
    """
    return 2 * math.ceil(math.sqrt(n)) + math.ceil(math.log2(max(n, 2)))


def ulp(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return the spacing of ``dtype`` around each of ``values`` (float64, any shape), subnormals included."""
    lowest = math.frexp(torch.finfo(dtype).smallest_normal)[1]
    exponent = torch.where(values == 0, lowest, torch.frexp(values.double()).exponent.clamp(min=lowest))
    return torch.ldexp(torch.ones_like(values, dtype=torch.float64), exponent - _MANTISSA[dtype])


def output_bound(oracle: torch.Tensor, slack: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return the allowed |error| of a result that is within ``slack`` of the oracle before it is rounded once.

    Half a unit of the largest value that may be rounded, plus the slack. All float64, one shape.
    """
    return 0.5 * ulp(oracle.abs() + slack, dtype) + slack


def budget_used(result: torch.Tensor, oracle: torch.Tensor, bound: torch.Tensor) -> torch.Tensor:
    """Return |result − oracle| ÷ bound for each element; above 1 is out of bound, NaN never is within.

    Where the oracle rounds to infinity in the result's dtype, that infinity is free of error and everything finite is
    judged as it stands. An error of 0 against a bound of 0 uses nothing. Integers must be equal.
    """
    if not result.is_floating_point():
        return torch.where(result == oracle, 0.0, math.inf)
    exact = result.to(torch.float64)
    largest = torch.finfo(result.dtype).max
    overflows = oracle.abs() + bound >= largest + 0.5 * ulp(torch.tensor(largest), result.dtype)
    right_infinity = exact.isinf() & overflows & (exact.sign() == oracle.sign())
    error = (exact - oracle).abs()
    share = torch.where(error == 0, 0.0, error / bound)
    share = torch.where(right_infinity, 0.0, share)
    return share.nan_to_num(nan=math.inf, posinf=math.inf)
