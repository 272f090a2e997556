"""A persistent add + RMSNorm, measured beside the shipped kernel: few programs, the next row loaded in advance."""

from __future__ import annotations

from typing import Any

import torch

from gaugeblock.kernels.rounding import rounded, widened
from gaugeblock.kernels.runtime import add, jit, tl


@jit
def _persistent_kernel(
    x_ptr: tl.tensor,
    residual_ptr: tl.tensor,
    weight_ptr: tl.tensor,
    y_ptr: tl.tensor,
    residual_out_ptr: tl.tensor,
    rows: tl.tensor,
    hidden: tl.tensor,
    eps: tl.tensor,
    COLS: tl.constexpr,  # noqa: N803 # Triton's constants are written in capitals
) -> None:
    col = tl.arange(0, COLS)[None, :]
    inside = col < hidden
    weight = widened(tl.load(weight_ptr + col, mask=inside, other=0.0))
    step = tl.num_programs(0)
    current = tl.program_id(0)
    offset = current.to(tl.int64) * hidden + col
    x = tl.load(x_ptr + offset, mask=inside, other=0.0)
    residual = tl.load(residual_ptr + offset, mask=inside, other=0.0)
    while current < rows:
        here = current.to(tl.int64) * hidden + col
        total = rounded(widened(x) + widened(residual), residual_out_ptr.dtype.element_ty)
        following = here + step.to(tl.int64) * hidden
        more = inside & (col * 0 + current + step < rows)
        x = tl.load(x_ptr + following, mask=more, other=0.0)
        residual = tl.load(residual_ptr + following, mask=more, other=0.0)
        tl.store(residual_out_ptr + here, total, mask=inside)
        value = widened(total)
        scale = tl.rsqrt(tl.reduce(value * value, 1, add) / hidden + eps)[:, None]
        tl.store(y_ptr + here, rounded(value * scale * weight, y_ptr.dtype.element_ty), mask=inside)
        current += step


def persistent(per_multiprocessor: int, warps: int) -> Any:
    """Return add_rmsnorm as a persistent kernel; contiguous inputs, whole rows."""
    programs = per_multiprocessor * torch.cuda.get_device_properties(0).multi_processor_count

    def call(x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, eps: float = 1e-6) -> Any:
        rows, hidden = x.shape
        y, total = torch.empty_like(x), torch.empty_like(x)
        cols = 1 << (hidden - 1).bit_length()
        _persistent_kernel[(min(rows, programs),)](
            x, residual, weight, y, total, rows, hidden, eps, COLS=cols, num_warps=warps
        )
        return y, total

    return call
