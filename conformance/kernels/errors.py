"""The size of an output's error as a whole, and PyTorch's own for comparison."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from gaugeblock.fixtures.targets.kernels import KernelTarget
from gaugeblock.kernels.contract import Case, Op, Tensors


@dataclass(frozen=True)
class ErrorSizes:
    """Root mean square and maximum of |result − oracle|."""

    rmse: float
    maximum: float


def error_sizes(result: torch.Tensor, oracle: torch.Tensor) -> ErrorSizes:
    """Return the sizes; NaN anywhere makes them infinite."""
    error = (result.detach().cpu().double() - oracle).abs().nan_to_num(nan=float("inf"))
    return ErrorSizes(error.square().mean().sqrt().item(), error.max().item())


def eager_outputs(kernels: KernelTarget, op: Op, case: Case) -> Tensors:
    """Return the op from PyTorch's unfused kernels on the target's device."""
    return op.named(op.eager(*kernels.place(case).values(), **case.params))


def times_eager(kernels: KernelTarget, op: Op, case: Case) -> dict[str, dict[str, float]]:
    """Return by output how many times eager's error the target's is, ``rmse`` and ``maximum``.

    An eager result better than the oracle rounded once counts as that.
    """
    outputs, eager = kernels.run(op, case), eager_outputs(kernels, op, case)
    found = {}
    for name, expected in op.oracle(case).items():
        ours, theirs = error_sizes(outputs[name], expected), error_sizes(eager[name], expected)
        rounded = error_sizes(expected.to(case.dtype), expected)
        found[name] = {
            "rmse": _times(ours.rmse, max(theirs.rmse, rounded.rmse)),
            "maximum": _times(ours.maximum, max(theirs.maximum, rounded.maximum)),
        }
    return found


def _times(error: float, baseline: float) -> float:
    """Return the ratio in three digits; 1 where both are nothing."""
    if not baseline:
        return math.inf if error else 1.0
    return float(f"{error / baseline:.3g}")
