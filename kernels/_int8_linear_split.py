"""The INT8 linear layer for 2 to 16 tokens: tensor cores, the summed index split over the warps of a program.

A tile of few channels has no work for several warps; here each takes another part of the summed index, and their sums
are added up at the end. So few channels need little shared memory: several programs fit on a multiprocessor, and those
of the next launch already ask for their weights while this one's still compute.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from gaugeblock.kernels._int8_linear_gemv import aligned, request
from gaugeblock.kernels.rounding import rounded, widened
from gaugeblock.kernels.runtime import INTERPRETED, add, jit, overlaps, quiet, tl

_INTERPRETED = tl.constexpr(INTERPRETED)  # kernels read no other kind of global

TOKENS = 16  # the side of a tensor core's tile


@dataclass(frozen=True)
class SplitConfig:
    """One way to launch the kernel.

    16 tokens × ``channels`` a program of ``warps``, each of which multiplies ``block`` of the summed index a step.
    ``ahead``: the share of each channel that a program asks for into the L2 cache while the kernel before it still
    runs. ``stages``: so many steps are in shared memory or on their way there.
    """

    channels: int
    block: int
    warps: int
    stages: int
    ahead: float = 0.0


@jit
def _products(x: tl.tensor, w: tl.tensor, acc: tl.tensor) -> tl.tensor:
    """Return acc + x · wᵀ of each part, exactly: int8 operands, int32 sums."""
    if _INTERPRETED:  # numpy multiplies floats by BLAS, integers one by one; up to 1024 products fp32 is exact
        return acc + tl.dot(x.to(tl.float32), tl.permute(w, (0, 2, 1)).to(tl.float32)).to(tl.int32)
    return tl.dot(x, tl.permute(w, (0, 2, 1)), acc, out_dtype=tl.int32)


@jit
def _int8_split_kernel(
    x: tl.tensor,
    x_scale_ptr: tl.tensor,
    w: tl.tensor,
    w_scale_ptr: tl.tensor,
    bias_ptr: tl.tensor,
    out: tl.tensor,
    x_stride: tl.tensor,
    x_scale_stride: tl.tensor,
    w_stride: tl.tensor,
    out_stride: tl.tensor,
    rows: tl.tensor,
    columns: tl.tensor,
    depth: tl.tensor,
    ahead: tl.tensor,
    ROWS: tl.constexpr,  # noqa: N803 # Triton's constants are written in capitals
    CHANNELS: tl.constexpr,  # noqa: N803 # the same
    BLOCK: tl.constexpr,  # noqa: N803 # the same
    PARTS: tl.constexpr,  # noqa: N803 # the same; as many as warps
    OVERLAP: tl.constexpr,  # noqa: N803 # the same
    AHEAD: tl.constexpr,  # noqa: N803 # the same
) -> None:
    blocks = (columns + CHANNELS - 1) // CHANNELS
    col = tl.program_id(0) % blocks * CHANNELS + tl.arange(0, CHANNELS)
    row = tl.program_id(0) // blocks * ROWS + tl.arange(0, ROWS)
    if OVERLAP:
        tl.extra.cuda.gdc_launch_dependents()
        if AHEAD:
            request(w + tl.minimum(col, columns - 1).to(tl.int64) * w_stride, ahead)
        tl.extra.cuda.gdc_wait()
    x_scale = tl.load(x_scale_ptr + row.to(tl.int64) * x_scale_stride, mask=row < rows, other=0.0)
    w_scale = tl.load(w_scale_ptr + col, mask=col < columns, other=0.0)
    bias = tl.load(bias_ptr + col, mask=col < columns, other=0.0)
    x_at = x + row.to(tl.int64)[None, :, None] * x_stride  # [1, ROWS, 1]
    w_at = w + col.to(tl.int64)[None, :, None] * w_stride  # [1, CHANNELS, 1]
    x_inside = (row < rows)[None, :, None]
    w_inside = (col < columns)[None, :, None]
    part = tl.arange(0, PARTS)[:, None, None] * BLOCK + tl.arange(0, BLOCK)[None, None, :]  # [PARTS, 1, BLOCK]
    acc = tl.full((PARTS, ROWS, CHANNELS), 0, dtype=tl.int32)
    for k in range(0, depth, PARTS * BLOCK):
        step = k + part
        x_part = tl.load(x_at + step, mask=x_inside & (step < depth), other=0)
        w_part = tl.load(w_at + step, mask=w_inside & (step < depth), other=0)
        acc = _products(x_part, w_part, acc)
    total = tl.reduce(acc, 0, add)  # [ROWS, CHANNELS]
    value = total.to(tl.float32) * w_scale[None, :] * x_scale[:, None] + widened(bias)[None, :]
    out_at = row.to(tl.int64)[:, None] * out_stride + col[None, :]
    result = rounded(value, out.dtype.element_ty)
    tl.store(out + out_at, result, mask=(row < rows)[:, None] & (col < columns)[None, :])


def launch_split(
    x: torch.Tensor,
    x_scale: torch.Tensor,
    weight: torch.Tensor,
    w_scale: torch.Tensor,
    bias: torch.Tensor,
    out: torch.Tensor,
    config: SplitConfig,
) -> None:
    """Write ``out`` ``[rows, columns]``, rows > 0; operands as of the tiles' launch."""
    (rows, depth), columns = x.shape, weight.shape[0]
    ahead = int(config.ahead * depth) // 16 * 16 if overlaps() and aligned(weight) else 0
    with quiet():
        _int8_split_kernel[(-(-columns // config.channels) * -(-rows // TOKENS),)](
            x,
            x_scale,
            weight,
            w_scale,
            bias,
            out,
            x.stride(0),
            x_scale.stride(0),
            weight.stride(0),
            out.stride(0),
            rows,
            columns,
            depth,
            ahead,
            ROWS=TOKENS,
            CHANNELS=config.channels,
            BLOCK=config.block,
            PARTS=config.warps,
            OVERLAP=overlaps(),
            AHEAD=ahead > 0,
            num_warps=config.warps,
            num_stages=config.stages,
            **({"launch_pdl": True} if overlaps() else {}),
        )
