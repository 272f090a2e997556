"""The size of an output's error as a whole, and PyTorch's own for comparison."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from gaugeblock.fixtures.targets.kernels import KernelTarget
from gaugeblock.kernels.contract import Case, Op, Tensors


@dataclass(frozen=True)
class ErrorSizes:
    """Root mean square and maximum of |result − oracle|."""

    rmse: float
    maximum: float

    def rounded(self) -> dict[str, float]:
        """Return the two errors for the evidence."""
        return {"rmse": float(f"{self.rmse:.3g}"), "max": float(f"{self.maximum:.3g}")}


def error_sizes(result: torch.Tensor, oracle: torch.Tensor) -> ErrorSizes:
    """Return the sizes; NaN anywhere makes them infinite."""
    error = (result.detach().cpu().double() - oracle).abs().nan_to_num(nan=float("inf"))
    return ErrorSizes(error.square().mean().sqrt().item(), error.max().item())


def eager_outputs(kernels: KernelTarget, op: Op, case: Case) -> Tensors:
    """Return the op from PyTorch's unfused kernels on the target's device."""
    return op.named(op.eager(*kernels.place(case).values(), **case.params))
