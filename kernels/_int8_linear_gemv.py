"""The INT8 linear layer for a few tokens: plain multiply-add, four products an instruction, no tensor core.

A decode step reads every weight for a handful of tokens: what counts is how many bytes of the weights are in flight. A
tensor core's tile keeps them in shared memory, of which a multiprocessor holds one or two tiles; here a program owns a
few channels, its threads take 16 bytes of a channel at a time straight into registers, and so many programs fit beside
each other that those of the next launch already ask for their weights while this one's still compute.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from gaugeblock.kernels.rounding import rounded, widened
from gaugeblock.kernels.runtime import INTERPRETED, add, inline, jit, overlaps, quiet, tl

_INTERPRETED = tl.constexpr(INTERPRETED)  # kernels read no other kind of global


@dataclass(frozen=True)
class GemvConfig:
    """One way to launch the kernel.

    ``rows`` tokens × ``channels`` a program, which walks the summed index in steps of ``block`` elements (a power of
    two); where one step holds all of it, every load is under way before the first product. ``ahead``: the share of each
    channel that a program asks for into the L2 cache while the kernel before it still runs. ``stages`` > 1: so many
    steps are copied to shared memory in advance.
    """

    rows: int
    channels: int
    block: int
    warps: int
    ahead: float = 0.0
    stages: int = 1


@jit
def request(rows: tl.tensor, size: tl.tensor) -> None:
    """Ask for the first ``size`` bytes of each row into the L2 cache; a hint, which leaves what is read as it is."""
    tl.inline_asm_elementwise(
        "{ .reg .pred p; .reg .u32 t; mov.u32 t, %tid.x; setp.lt.u32 p, t, $3;"
        " @p cp.async.bulk.prefetch.L2.global [$1], $2; mov.u32 $0, 0; }",
        "=r,l,r,r",
        [rows, size, rows.shape[0]],
        dtype=tl.int32,
        is_pure=False,
        pack=1,
    )


@inline
def _fourth(word: tl.tensor, index: tl.constexpr) -> tl.tensor:
    """Return one of the four int8 that a word holds, in int32."""
    return (word << (24 - 8 * index)) >> 24


@inline
def _plus_products(acc: tl.tensor, x: tl.tensor, w: tl.tensor, WORDS: tl.constexpr) -> tl.tensor:  # noqa: N803 # Triton's constants are written in capitals
    """Return acc + x · w, exactly, in int32: of int8, or of words of four int8 each."""
    if not WORDS:
        return acc + x.to(tl.int32) * w.to(tl.int32)
    elif _INTERPRETED:  # noqa: RET505 # Triton compiles both branches of what does not end in else
        for index in tl.static_range(4):
            acc += _fourth(x, index) * _fourth(w, index)
        return acc
    else:
        return tl.inline_asm_elementwise(
            "dp4a.s32.s32 $0, $1, $2, $3;", "=r,r,r,r", [x, w, acc], dtype=tl.int32, is_pure=True, pack=1
        )


@jit
def _int8_gemv_kernel(
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
    BLOCK: tl.constexpr,  # noqa: N803 # the same; in units
    UNIT: tl.constexpr,  # noqa: N803 # the same; elements that are loaded as one: a word's four, or one
    WHOLE: tl.constexpr,  # noqa: N803 # the same; one step holds the depth, and no loop remains
    STAGES: tl.constexpr,  # noqa: N803 # the same
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
    if UNIT == 4:
        x = x.to(tl.pointer_type(tl.int32))
        w = w.to(tl.pointer_type(tl.int32))
    x_at = x + row.to(tl.int64)[:, None, None] * (x_stride // UNIT)  # [ROWS, 1, 1]
    w_at = w + col.to(tl.int64)[None, :, None] * (w_stride // UNIT)  # [1, CHANNELS, 1]
    x_inside = (row < rows)[:, None, None]
    w_inside = (col < columns)[None, :, None]
    units = depth // UNIT
    unit = tl.arange(0, BLOCK)[None, None, :]
    acc = tl.full((ROWS, CHANNELS, BLOCK), 0, dtype=tl.int32)
    for k in tl.range(0, BLOCK if WHOLE else units, BLOCK, num_stages=STAGES):
        step = k + unit
        w_part = tl.load(w_at + step, mask=w_inside & (step < units), other=0)
        x_part = tl.load(x_at + step, mask=x_inside & (step < units), other=0)
        acc = _plus_products(acc, x_part, w_part, UNIT == 4)
    total = tl.reduce(acc, 2, add)  # [ROWS, CHANNELS]
    value = total.to(tl.float32) * w_scale[None, :] * x_scale[:, None] + widened(bias)[None, :]
    out_at = row.to(tl.int64)[:, None] * out_stride + col[None, :]
    result = rounded(value, out.dtype.element_ty)
    tl.store(out + out_at, result, mask=(row < rows)[:, None] & (col < columns)[None, :])


def launch_gemv(
    x: torch.Tensor,
    x_scale: torch.Tensor,
    weight: torch.Tensor,
    w_scale: torch.Tensor,
    bias: torch.Tensor,
    out: torch.Tensor,
    config: GemvConfig,
) -> None:
    """Write ``out`` ``[rows, columns]``, rows > 0; operands as of the tiles' launch."""
    (rows, depth), columns = x.shape, weight.shape[0]
    unit = 4 if aligned(x) and aligned(weight) and depth % 4 == 0 else 1
    block = config.block // unit
    ahead = int(config.ahead * depth) // 16 * 16 if overlaps() and aligned(weight) else 0
    with quiet():
        _int8_gemv_kernel[(-(-columns // config.channels) * -(-rows // config.rows),)](
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
            ROWS=config.rows,
            CHANNELS=config.channels,
            BLOCK=block,
            UNIT=unit,
            WHOLE=depth <= config.block,
            STAGES=config.stages,
            OVERLAP=overlaps(),
            AHEAD=ahead > 0,
            num_warps=config.warps,
            **({"launch_pdl": True} if overlaps() else {}),
        )


def aligned(tensor: torch.Tensor) -> bool:
    """Whether every row begins at a multiple of 16 bytes, as vectors of words and requests of the cache need it."""
    return tensor.data_ptr() % 16 == 0 and tensor.stride(0) * tensor.element_size() % 16 == 0
