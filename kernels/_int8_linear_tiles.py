"""The tensor cores' Triton kernel of the INT8 linear layer, and which kernel is launched with which tiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from gaugeblock.kernels._int8_linear_early import MOST_ROWS, EarlyConfig, fits, launch_early
from gaugeblock.kernels._int8_linear_gemv import GemvConfig, launch_gemv, request
from gaugeblock.kernels._int8_linear_hopper import HopperConfig, launch_hopper
from gaugeblock.kernels._int8_linear_hopper import fits as hopper_fits
from gaugeblock.kernels.rounding import rounded, widened
from gaugeblock.kernels.runtime import INTERPRETED, jit, quiet, tl

_INTERPRETED = tl.constexpr(INTERPRETED)  # kernels read no other kind of global


@dataclass(frozen=True)
class Config:
    """One way to launch the kernel.

    ``block_m`` tokens × ``block_n`` channels a tile, ``block_k`` of the summed index a step. ``bulk``: the tensor
    memory accelerator fetches the tiles of operands whose layout it takes; ``bulk_out``: it then stores the result's as
    well, in ``subtiles`` parts. ``persistent``: one program a multiprocessor walks over the tiles. ``ahead``: while the
    kernel before it still runs, a program asks for so many bytes of each of its channels into the L2 cache, the most
    that can be done before what that kernel writes may be read. ``group``: so many rows of tiles are visited together,
    for the L2 cache.
    """

    block_m: int
    block_n: int
    block_k: int
    warps: int
    stages: int
    bulk: bool = False
    bulk_out: bool = True
    persistent: bool = False
    subtiles: int = 1
    ahead: int = 0
    group: int = 8


AnyConfig = Config | GemvConfig | EarlyConfig | HopperConfig


@jit
def _product(left: tl.tensor, right: tl.tensor, acc: tl.tensor) -> tl.tensor:
    """Return acc + left · right, exactly: int8 operands, int32 sums."""
    if _INTERPRETED:  # numpy multiplies floats by BLAS, integers one by one; up to 1024 products fp32 is exact
        return acc + tl.dot(left.to(tl.float32), right.to(tl.float32)).to(tl.int32)
    return tl.dot(left, right, acc, out_dtype=tl.int32)


@jit
def _int8_linear_kernel(
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
    BLOCK_M: tl.constexpr,  # noqa: N803 # Triton's constants are written in capitals
    BLOCK_N: tl.constexpr,  # noqa: N803 # the same
    BLOCK_K: tl.constexpr,  # noqa: N803 # the same
    GROUP: tl.constexpr,  # noqa: N803 # the same
    BULK: tl.constexpr,  # noqa: N803 # the same; x and w are descriptors
    BULK_OUT: tl.constexpr,  # noqa: N803 # the same; out is one
    PERSISTENT: tl.constexpr,  # noqa: N803 # the same
    SUBTILES: tl.constexpr,  # noqa: N803 # the same
    AHEAD: tl.constexpr,  # noqa: N803 # the same
) -> None:
    tiles_m = (rows + BLOCK_M - 1) // BLOCK_M
    tiles_n = (columns + BLOCK_N - 1) // BLOCK_N
    for tile in tl.range(tl.program_id(0), tiles_m * tiles_n, tl.num_programs(0), flatten=PERSISTENT):
        within = tile % (GROUP * tiles_n)  # GROUP rows of tiles are visited column by column
        first = tile // (GROUP * tiles_n) * GROUP
        height = min(tiles_m - first, GROUP)
        m = (first + within % height) * BLOCK_M
        n = within // height * BLOCK_N
        row = m + tl.arange(0, BLOCK_M)
        col = n + tl.arange(0, BLOCK_N)
        if AHEAD:
            tl.extra.cuda.gdc_launch_dependents()
            request(w + tl.minimum(col, columns - 1).to(tl.int64) * w_stride, ahead)
            tl.extra.cuda.gdc_wait()
        x_scale_at = x_scale_ptr + row.to(tl.int64) * x_scale_stride
        w_scale_at = w_scale_ptr + col
        if (
            AHEAD
        ):  # a program that lives shortly cannot wait for them in the end; one of many registers cannot hold them
            x_scale = tl.load(x_scale_at, mask=row < rows, other=0.0)
            w_scale = tl.load(w_scale_at, mask=col < columns, other=0.0)
            bias = tl.load(bias_ptr + col, mask=col < columns, other=0.0)
        acc = tl.full((BLOCK_M, BLOCK_N), 0, dtype=tl.int32)
        if not BULK:
            x_at = x + row.to(tl.int64)[:, None] * x_stride
            w_at = w + col.to(tl.int64)[:, None] * w_stride
            x_inside = (row < rows)[:, None]
            w_inside = (col < columns)[:, None]
        for k in range(0, depth, BLOCK_K):
            if BULK:  # what lies outside of x and w arrives as zeros
                x_tile = x.load([m, k])  # [BLOCK_M, BLOCK_K]
                w_tile = w.load([n, k])  # [BLOCK_N, BLOCK_K]
            else:
                step = k + tl.arange(0, BLOCK_K)[None, :]
                inside = step < depth
                x_tile = tl.load(x_at + step, mask=inside & x_inside, other=0)
                w_tile = tl.load(w_at + step, mask=inside & w_inside, other=0)
            acc = _product(x_tile, w_tile.T, acc)
        if not AHEAD:
            x_scale = tl.load(x_scale_at, mask=row < rows, other=0.0)
            w_scale = tl.load(w_scale_at, mask=col < columns, other=0.0)
            bias = tl.load(bias_ptr + col, mask=col < columns, other=0.0)
        value = acc.to(tl.float32) * w_scale[None, :] * x_scale[:, None] + widened(bias)[None, :]
        if BULK_OUT:
            result = rounded(value, out.dtype)
            if SUBTILES == 2:  # a smaller buffer on the way out leaves room for a stage of operands
                halves = result.reshape(BLOCK_M, 2, BLOCK_N // 2).permute(0, 2, 1)
                left, right = halves.split()
                out.store([m, n], left)
                out.store([m, n + BLOCK_N // 2], right)
            else:
                out.store([m, n], result)
        else:
            result = rounded(value, out.dtype.element_ty)
            out_at = row.to(tl.int64)[:, None] * out_stride + col[None, :]
            tl.store(out + out_at, result, mask=(row < rows)[:, None] & (col < columns)[None, :])


_LARGE = Config(128, 256, 128, 8, 4, bulk=True, persistent=True, subtiles=2)
_MIDDLE = Config(128, 128, 128, 4, 3, bulk=True, bulk_out=False)  # two programs a multiprocessor
_SMALL = Config(64, 128, 128, 4, 4, bulk=True)
_SHORT = Config(64, 32, 256, 4, 4, ahead=1024)
_DECODE = Config(16, 16, 512, 2, 6, ahead=1024)
_DECODE_WAVES = Config(16, 16, 512, 2, 5, ahead=1024)
_ONE = GemvConfig(1, 4, 4096, 8, ahead=0.25)
_ONE_WAVES = GemvConfig(1, 4, 4096, 2)
_FEW = GemvConfig(4, 4, 4096, 2, ahead=0.25)
_STEPS = GemvConfig(4, 4, 512, 1, ahead=0.5)  # walks any depth in many steps
_EARLY = EarlyConfig(64, 8)
_EARLY_NARROW = EarlyConfig(32, 4)
_HOPPER = HopperConfig(128, 256, 4)
_HOPPER_SQUARE = HopperConfig(128, 128, 6, below=True)
_HOPPER_SMALL = HopperConfig(64, 128, 8)
_INTERPRETER = Config(16, 64, 512, 4, 1)
_INTERPRETER_ONE = GemvConfig(2, 64, 512, 4)

CONFIGS: tuple[AnyConfig, ...] = (
    _DECODE,
    _DECODE_WAVES,
    _LARGE,
    _SHORT,
    _MIDDLE,
    _SMALL,
    _ONE,
    _ONE_WAVES,
    _FEW,
    _STEPS,
    *((_INTERPRETER, _INTERPRETER_ONE) if INTERPRETED else (_EARLY, _EARLY_NARROW)),
    *(() if INTERPRETED else (_HOPPER, _HOPPER_SQUARE, _HOPPER_SMALL)),
)
"""All that may be launched; ``_STEPS`` only when asked for."""

_WAVES = {_HOPPER: 21.3, _HOPPER_SQUARE: 11.2, _HOPPER_SMALL: 7.4}
"""Microseconds that one tile on each multiprocessor of an H200 takes at a depth of 4096, beside 5 of the launch."""


def early_for(rows: int, columns: int) -> EarlyConfig | None:
    """Return how weights at rest are read early, or None where that gains nothing: many channels keep a card busy."""
    if rows > MOST_ROWS or columns > 6144:
        return None
    return _EARLY if columns > 2048 else _EARLY_NARROW


def hopper_for(rows: int, columns: int) -> HopperConfig | None:
    """Return the tile of the kernel written for Hopper, or None where even small tiles leave half of a card idle.

    The fastest is the one whose last wave is full: of 28 sizes on an H200 from 128 to 8192 tokens and 4096 to 28672
    channels, this takes the fastest or one within 2% of it, 1.05 to 1.9 times as fast as the other kernels.
    """

    def tiles(config: HopperConfig) -> int:
        return -(-rows // config.rows) * -(-columns // config.channels)

    if rows <= 64 or tiles(_HOPPER_SMALL) < 64:
        return None
    return min(_WAVES, key=lambda config: _WAVES[config] * -(-tiles(config) // 132))


def config_for(rows: int, columns: int, depth: int) -> Config | GemvConfig:
    """Return the fastest way seen on an H100 or H200 for ``[rows, depth]`` and ``[columns, depth]``, depth 4096."""
    if INTERPRETED:
        return _INTERPRETER_ONE if rows == 1 else _INTERPRETER
    if rows == 1:
        return _ONE if columns <= 8192 else _ONE_WAVES
    if rows <= 4 and columns <= 8192:
        return _FEW
    if rows <= 32:
        return _DECODE if columns <= 8192 else _DECODE_WAVES
    if rows <= 128:
        return _SHORT
    if rows <= 512:
        return _SMALL
    return _LARGE if rows * columns >= 132 * _LARGE.block_m * _LARGE.block_n else _MIDDLE


def launch(
    x: torch.Tensor,
    x_scale: torch.Tensor,
    weight: torch.Tensor,
    w_scale: torch.Tensor,
    bias: torch.Tensor,
    out: torch.Tensor,
    config: AnyConfig | None = None,
    at_rest: bool = False,
) -> None:
    """Write ``out`` ``[rows, columns]``; operands with contiguous rows, ``x_scale`` ``[rows]`` of any stride."""
    (rows, depth), columns = x.shape, weight.shape[0]
    if rows == 0:
        return
    wanted = config or (early_for(rows, columns) if at_rest else None) or hopper_for(rows, columns)
    if isinstance(wanted, EarlyConfig) and fits(x, weight):
        launch_early(x, x_scale, weight, w_scale, bias, out, wanted, at_rest)
        return
    if isinstance(wanted, HopperConfig) and hopper_fits(x, weight, out):
        launch_hopper(x, x_scale, weight, w_scale, bias, out, wanted)
        return
    chosen = config if isinstance(config, Config | GemvConfig) else config_for(rows, columns, depth)
    if isinstance(chosen, GemvConfig):
        launch_gemv(x, x_scale, weight, w_scale, bias, out, chosen)
        return
    tiles = -(-rows // chosen.block_m) * -(-columns // chosen.block_n)
    bulk = chosen.bulk and _takes_bulk(x) and _takes_bulk(weight)
    small = out.element_size() == 2  # shared memory holds no fp32 tile beside the next tile's operands
    bulk_out = bulk and chosen.bulk_out and small and _takes_bulk(out)
    persistent = chosen.persistent and small
    ahead = min(chosen.ahead, depth // 16 * 16) if _takes_bulk(weight) else 0
    with quiet():
        _int8_linear_kernel[(min(tiles, _processors()) if persistent else tiles,)](
            _described(x, (chosen.block_m, chosen.block_k)) if bulk else x,
            x_scale,
            _described(weight, (chosen.block_n, chosen.block_k)) if bulk else weight,
            w_scale,
            bias,
            _described(out, (chosen.block_m, chosen.block_n // chosen.subtiles)) if bulk_out else out,
            x.stride(0),
            x_scale.stride(0),
            weight.stride(0),
            out.stride(0),
            rows,
            columns,
            depth,
            ahead,
            BLOCK_M=chosen.block_m,
            BLOCK_N=chosen.block_n,
            BLOCK_K=chosen.block_k,
            GROUP=chosen.group,
            BULK=bulk,
            BULK_OUT=bulk_out,
            PERSISTENT=persistent,
            SUBTILES=chosen.subtiles,
            AHEAD=ahead > 0,
            num_warps=chosen.warps,
            num_stages=chosen.stages,
            **({"launch_pdl": True} if ahead else {}),
        )


def _takes_bulk(tensor: torch.Tensor) -> bool:
    """Whether the tensor memory accelerator takes the layout: base and row stride multiples of 16 bytes."""
    return not INTERPRETED and tensor.data_ptr() % 16 == 0 and tensor.stride(0) * tensor.element_size() % 16 == 0


def _described(tensor: torch.Tensor, block: Sequence[int]) -> Any:
    from triton.tools.tensor_descriptor import TensorDescriptor

    return TensorDescriptor(tensor, list(tensor.shape), list(tensor.stride()), list(block))


@cache
def _processors() -> int:
    return torch.cuda.get_device_properties(0).multi_processor_count if not INTERPRETED else 4
