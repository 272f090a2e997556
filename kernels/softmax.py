"""Softmax over the last dimension: ``out = exp(x − max(x)) / Σ exp(x − max(x))``, for any vocabulary.

The logits of a serving engine are rows of 32 000 to 262 144 columns. Unfused, a row is read for its maximum, for its
sum and for its result; fused, once: 2 × columns × itemsize bytes a row. The kernel holds the first ``held`` columns of
a row in registers, as they are stored. Where the row is longer it streams the rest in tiles, each lane with a maximum
and a sum of its own that are corrected when the maximum rises (the online softmax), and reads that rest a second time,
out of the cache, to write the result.

Where logits are −inf the result is exactly zero. **A row of −inf alone is zeros**, not the NaN of ``torch.softmax``: a
sampler sees a sum of 0 where it looks for a kept set, and the rows beside it in a cumulative sum stay what they are;
PyTorch's own attention and flashinfer define masked rows so too. A row with NaN or +inf is NaN.

Error model (u = 2⁻²⁴, n = columns, d = max(x) − x, p = the result). All in fp32, one rounding at the end. The
difference, the product with log₂e and that constant put 3du into an exponential, the hardware's approximation 4u. In
the sum each term carries its own error, so its share is Σ p (3d + 4) u; the additions add sum_depth(n) u; a partial sum
is corrected by another exponential each time its maximum rises, at most once in 1024 columns and 2 log₂ n times where
lanes are combined, 5u each (their distances add up to the term's own d). The reciprocal adds 4u, the product u. Below
2⁻¹²⁶ an exponential may become zero: an absolute error of 2⁻¹²⁶.

Online softmax: Milakov and Gimelshein 2018, arXiv:1805.02867.
"""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import torch

from gaugeblock.kernels.arguments import (
    DTYPES,
    Refused,
    input_rows,
    output_rows,
    require_hidden,
    require_like,
    require_shape,
)
from gaugeblock.kernels.bounds import TINY, U, output_bound, sum_depth
from gaugeblock.kernels.cases import fill, normal
from gaugeblock.kernels.contract import Case, Op, Sizes, Tensors
from gaugeblock.kernels.rounding import rounded, widened
from gaugeblock.kernels.runtime import INTERPRETED, add, inline, jit, maximum, quiet, tl
from gaugeblock.kernels.special import exp_of as _exp

MAX_COLUMNS = 2**24

_INTERPRETED = tl.constexpr(INTERPRETED)  # kernels read no other kind of global
_NOTHING = tl.constexpr(float("-inf"))
_LOWEST = tl.constexpr(torch.finfo(torch.float32).min)
"""Where a maximum starts: finite, so that −inf minus it is −inf, never NaN."""


class Config(NamedTuple):
    """How a row is cut up: ``rows`` a program, ``held`` columns in registers, ``tile`` columns a step of the rest.

    ``registers``: the most that a thread may take, so that as many programs as planned share a multiprocessor.
    """

    rows: int
    held: int
    tile: int
    warps: int
    registers: int


_MIDDLING = {2: Config(1, 16384, 16384, 16, 64), 4: Config(1, 8192, 8192, 16, 64)}
_LONG = {2: Config(1, 32768, 32768, 32, 64), 4: Config(1, 16384, 16384, 32, 64)}
_ON_GPU = (
    Config(16, 64, 1024, 4, 64),
    Config(1, 1024, 1024, 4, 64),
    Config(1, 8192, 8192, 8, 64),
    Config(1, 32768, 8192, 16, 64),
    *_MIDDLING.values(),
    *_LONG.values(),
)
_INTERPRETABLE = (Config(16, 64, 256, 4, 64), Config(16, 1024, 1024, 4, 64), Config(1, 8192, 1024, 4, 64))
CONFIGS: tuple[Config, ...] = _INTERPRETABLE if INTERPRETED else _ON_GPU
"""Every configuration that may be launched. Each takes rows of any length."""


SHARED_ROW = 192 * 1024
"""Bytes of the longest row of which two programs share a multiprocessor: 264 such rows just exceed an H200's cache."""


def config_for(columns: int, itemsize: int) -> Config:
    """Return the configuration for a row length, whatever the number of rows: a row's bits must not depend on it.

    On an H100, two programs that hold 64 KiB each keep a multiprocessor busier than one, .97 of a copy at 32000
    columns. Two that hold half as much and read the rest again out of the second-level cache do as well as long as all
    rows in flight fit there: on an H200 .85 at 49152 columns and .90 at 65536, .57 and .68 one at a time. A longer row
    has the multiprocessor to itself: 64 KiB in registers, and the rest, read in the widest steps that they leave room
    for, in the first-level cache when it is read again, .92 at 128256 on an H100 and .81 on an H200. There neither
    fewer instructions, deeper prefetch, a ring in shared memory that reads the next row ahead, nor a cluster of
    multiprocessors that shares a row was faster.
    """
    if INTERPRETED:
        return CONFIGS[columns > CONFIGS[0].held]
    fitting = [c for c in CONFIGS if columns <= c.held <= 65536 // itemsize]
    if fitting:
        return fitting[0]
    return (_MIDDLING if columns * itemsize <= SHARED_ROW else _LONG)[itemsize]


_jit = partial(jit, do_not_specialize=("rows", "tiles"))  # type: ignore[call-arg] # triton.jit's own: one binary for batches of any size


@inline
def _anew(held: tl.tensor) -> tl.tensor:
    """Return ``held``, opaque to the compiler: it converts 16 bits anew instead of keeping 32 in registers."""
    if _INTERPRETED:
        return held
    if held.dtype.primitive_bitwidth == 16:
        return tl.inline_asm_elementwise("mov.b32 $0, $1;", "=r,r", [held], held.dtype, is_pure=False, pack=2)
    return held


@_jit
def _softmax_kernel(
    x_ptr: tl.tensor,
    out_ptr: tl.tensor,
    x_stride: tl.tensor,
    out_stride: tl.tensor,
    rows: tl.tensor,
    columns: tl.tensor,
    tiles: tl.tensor,
    ROWS: tl.constexpr,  # noqa: N803 # Triton's constants are written in capitals
    HELD: tl.constexpr,  # noqa: N803 # the same
    TILE: tl.constexpr,  # noqa: N803 # the same
    STREAMED: tl.constexpr,  # noqa: N803 # the same
    LANE: tl.constexpr,  # noqa: N803 # the same: columns of one 16-byte access, whose maximum and sum need one thread
) -> None:
    dtype: tl.constexpr = x_ptr.dtype.element_ty
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None, None]  # [ROWS, 1, 1]
    x_ptr += row * x_stride
    out_ptr += row * out_stride
    within = tl.arange(0, LANE)[None, None, :]
    col = tl.arange(0, HELD // LANE)[None, :, None] * LANE + within  # [1, HELD ÷ LANE, LANE]
    inside = (row < rows) & (col < columns)
    held = tl.load(x_ptr + col, mask=inside, other=_NOTHING, eviction_policy="evict_first")
    highest = tl.reduce(tl.reduce(widened(held), 2, maximum), 1, maximum)  # [ROWS]
    if STREAMED:
        lane_highest = tl.full([ROWS, TILE // LANE], _LOWEST, tl.float32)
        lane_total = tl.full([ROWS, TILE // LANE], 0, tl.float32)
        tile_col = HELD + tl.arange(0, TILE // LANE)[None, :, None] * LANE + within  # [1, TILE ÷ LANE, LANE]
        for tile in range(tiles):
            part = (row < rows) & (tile_col + tile * TILE < columns)
            x = tl.load(x_ptr + tile_col + tile * TILE, mask=part, other=_NOTHING, eviction_policy="evict_last")
            x = widened(x)
            higher = tl.maximum(lane_highest, tl.reduce(x, 2, maximum))
            correction = _exp(lane_highest - higher, dtype)
            lane_total = lane_total * correction + tl.reduce(_exp(x - higher[:, :, None], dtype), 2, add)
            lane_highest = higher
        highest = tl.maximum(highest, tl.reduce(lane_highest, 1, maximum))
    highest = tl.maximum(highest, _LOWEST)
    above = highest[:, None, None]  # [ROWS, 1, 1]
    total = tl.reduce(tl.reduce(_exp(widened(_anew(held)) - above, dtype), 2, add), 1, add)  # [ROWS]
    if STREAMED:
        total += tl.reduce(lane_total * _exp(lane_highest - highest[:, None], dtype), 1, add)
    scale = 1.0 / total
    scale = tl.fma(scale, tl.fma(-total, scale, 1.0), scale)  # one step of Newton: a row's elements share its error
    scale = tl.where(total == 0.0, 0.0, scale)[:, None, None]
    y = rounded(_exp(widened(_anew(held)) - above, dtype) * scale, dtype)
    tl.store(out_ptr + col, y, mask=inside, eviction_policy="evict_first")
    if STREAMED:
        for tile in range(tiles):
            part = (row < rows) & (tile_col + tile * TILE < columns)
            x = tl.load(x_ptr + tile_col + tile * TILE, mask=part, other=_NOTHING, eviction_policy="evict_first")
            tile_y = rounded(_exp(widened(x) - above, dtype) * scale, dtype)
            tl.store(out_ptr + tile_col + tile * TILE, tile_y, mask=part, eviction_policy="evict_first")


def softmax(x: torch.Tensor, *, out: torch.Tensor | None = None, config: Config | None = None) -> torch.Tensor:
    """Return the softmax of the last dimension of ``x``, of its shape and dtype; a row of −inf gives zeros.

    ``x``: ``[…, columns]``, fp32, fp16 or bf16, any finite values and −inf. ``out`` takes the result and may be ``x``.
    ``config`` replaces the tile chosen for the row length.

    Raises:
        Refused: shapes, dtypes, devices or strides that the op does not take.
    """
    if x.dim() == 0:
        raise Refused("x has no dimensions, expected […, columns]")
    columns = x.shape[-1]
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device) if out is None else out
    require_like("x", {"x": x, "out": out})
    require_hidden("x", columns, MAX_COLUMNS)
    require_shape("out", out, x.shape)
    _launch(input_rows(x), output_rows("out", out), config or config_for(columns, x.element_size()))
    return out


def _launch(x: torch.Tensor, out: torch.Tensor, config: Config) -> None:
    rows, columns = x.shape
    if rows == 0:
        return
    with quiet():
        _softmax_kernel[(-(-rows // config.rows),)](
            x,
            out,
            x.stride(0),
            out.stride(0),
            rows,
            columns,
            -(-max(columns - config.held, 0) // config.tile),
            ROWS=config.rows,
            HELD=config.held,
            TILE=config.tile,
            STREAMED=columns > config.held,
            LANE=64 if INTERPRETED else 16 // x.element_size(),
            num_warps=config.warps,
            maxnreg=config.registers,
        )


def eager(x: torch.Tensor) -> torch.Tensor:
    """Return PyTorch's own softmax: the baseline of errors and times. It reads a row three times."""
    return torch.softmax(x, dim=-1)


OWN_KINDS = ("masked", "all_masked", "rising", "low")


def make(rows: int, columns: int, dtype: torch.dtype, seed: int = 0, kind: str = "normal") -> Case:
    """Return logits ``[rows, columns]``.

    Kinds beside those of ``fill``: ``masked``, −inf nearly everywhere, in the first row but one column; ``all_masked``,
    every other row all −inf; ``rising``, each column above those before it, so that the running maximum rises with
    every tile; ``low``, about −60 000, below what is taken for −inf where a finite number is.
    """
    x = fill("normal" if kind in OWN_KINDS else kind, rows, columns, dtype, seed)
    if kind == "masked":
        kept = normal(rows, columns, seed + 1) > 1.5
        kept[:, columns // 2] = True
        kept[:1] = False
        kept[:1, columns - 1] = True
        x = x.masked_fill(~kept, -math.inf)
    elif kind == "all_masked":
        x[::2] = -math.inf
    elif kind == "rising":
        x = x.double().sort(dim=1).values.to(dtype) * 4
    elif kind == "low":
        x = (x.double() * 250 - 60000).to(dtype)
    return Case(f"softmax {rows}×{columns} {dtype} {kind} seed {seed}", dtype, {"x": x})


def workload(device: str, dtype: torch.dtype, rows: int, columns: int) -> Case:
    """Return N(0, 3²) logits, as a language model's are."""
    x = torch.randn(rows, columns, device=device, dtype=torch.float32).mul_(3).to(dtype)
    return Case(f"softmax {rows}×{columns}", dtype, {"x": x})


def _distance(case: Case) -> torch.Tensor:
    """Return max(x) − x of each row, float64, ``[rows, columns]``; infinite where x is −inf."""
    x = case.inputs["x"].double()
    highest = x.amax(dim=-1, keepdim=True)
    return (highest - x).nan_to_num(nan=math.inf, posinf=math.inf)  # −inf − (−inf): as far away as can be


def oracle(case: Case) -> Tensors:
    """Return the float64 ``out``; zeros for rows of −inf."""
    weight = torch.exp(-_distance(case))
    total = weight.sum(dim=-1, keepdim=True)
    return {"out": torch.where(total > 0, weight / total, 0.0)}


def bound(case: Case, expected: Tensors) -> Tensors:
    """Return the allowed error by the model of the module's docstring; a masked logit's is zero."""
    out, distance = expected["out"], _distance(case)
    n = out.shape[-1]
    own = 3 * distance.nan_to_num(posinf=0.0) + 4
    corrections = 5 * (n // 1024 + 2 * math.log2(max(n, 2)))
    shared = (out * own).sum(dim=-1, keepdim=True) + corrections + sum_depth(n) + 4 + 1
    slack = (own + shared) * U * out + 2.0**-126 + TINY
    return {"out": torch.where(distance.isinf(), 0.0, output_bound(out, slack, case.dtype))}


CONTRACT = Op(
    name="softmax",
    signature="softmax(x, *, out=None) -> out",
    make=make,
    workload=workload,
    oracle=oracle,
    bound=bound,
    outs={"out": "out"},
    dtypes=DTYPES,
    row_inputs=("x",),
    eager=eager,
    kernel=softmax,
    bytes_moved=lambda case: 2 * case.inputs["x"].numel() * case.inputs["x"].element_size(),
    flops=lambda case: 5 * case.inputs["x"].numel(),
    kinds=("normal", "small", "scaled", "offset", "denormal", "large", "zeros", *OWN_KINDS),
    sizes=Sizes(long=4097 if INTERPRETED else 65552),
    in_place={"out": "x"},
    leading=True,
    configs=CONFIGS,
)
