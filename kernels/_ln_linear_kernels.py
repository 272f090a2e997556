"""The three Triton kernels of :mod:`gaugeblock.kernels.ln_linear`: normalise, and linear in two forms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gaugeblock.kernels.rounding import rounded, widened
from gaugeblock.kernels.runtime import INTERPRETED, add, inline, jit, tl

_INTERPRETED = tl.constexpr(INTERPRETED)  # kernels read no other kind of global

_INTEGERS = ["x_stride", "weight_stride", "out_stride", "rows", "columns", "hidden"]
_jit: Callable[..., Callable[..., Any]] = jit
_general = _jit(do_not_specialize=_INTEGERS)  # compiled once for all sizes, not again for multiples of 16 and for 1


@_general
def normalise_kernel(
    x_ptr: tl.tensor,
    gain_ptr: tl.tensor,
    shift_ptr: tl.tensor,
    out_ptr: tl.tensor,
    x_stride: tl.tensor,
    out_stride: tl.tensor,
    rows: tl.tensor,
    hidden: tl.tensor,
    eps: tl.tensor,
    ROWS: tl.constexpr,  # noqa: N803 # Triton's constants are written in capitals
    COLS: tl.constexpr,  # noqa: N803 # the same
    WIDE: tl.constexpr,  # noqa: N803 # the same
    EARLY: tl.constexpr,  # noqa: N803 # the same
) -> None:
    """Write the layer norm of ``x`` ``[rows, hidden]``.

    ``WIDE``: ``hidden`` and strides are multiples of 8. ``EARLY`` lets a dependent kernel start before the end.
    """
    if EARLY:
        tl.extra.cuda.gdc_launch_dependents()
    if WIDE:  # says so to the compiler
        x_stride, out_stride, hidden = x_stride // 8 * 8, out_stride // 8 * 8, hidden // 8 * 8
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]  # [ROWS, 1]
    col = tl.arange(0, COLS)[None, :]  # [1, COLS]
    inside = (row < rows) & (col < hidden)
    gain = widened(tl.load(gain_ptr + col, mask=col < hidden, other=0.0))
    shift = widened(tl.load(shift_ptr + col, mask=col < hidden, other=0.0))
    x = widened(tl.load(x_ptr + row * x_stride + col, mask=inside, other=0.0))
    first_mean = tl.reduce(x, 1, add) / hidden  # [ROWS]
    apart = tl.where(inside, x - first_mean[:, None], 0.0)
    rest = tl.reduce(apart, 1, add) / hidden  # what rounding left in the mean
    variance = tl.reduce(apart * apart, 1, add) / hidden - rest * rest
    scale = tl.rsqrt(variance + eps)[:, None]
    y = (apart - rest[:, None]) * scale * gain + shift
    tl.store(out_ptr + row * out_stride + col, rounded(y, out_ptr.dtype.element_ty), mask=inside)


@inline
def activate(z: tl.tensor, ACTIVATION: tl.constexpr) -> tl.tensor:  # noqa: N803 # a constant
    """Return the activation of fp32 ``z``. NaN stays NaN in each."""
    if ACTIVATION == "gelu_tanh":  # z/2·(1 + tanh(v)) = z / (1 + exp(−2v)), without the cancellation
        return z / (1.0 + tl.exp(-1.5957691216057308 * (z + 0.044715 * z * z * z)))
    if ACTIVATION == "gelu":
        return 0.5 * z * (1.0 + tl.erf(0.7071067811865476 * z))
    if ACTIVATION == "silu":
        return z / (1.0 + tl.exp(-z))
    if ACTIVATION == "relu":
        return tl.where(z < 0.0, 0.0, z)
    return z


@inline
def product(x: tl.tensor, weight: tl.tensor, total: tl.tensor) -> tl.tensor:
    """Return ``total + x @ weight``, accumulated in fp32."""
    if _INTERPRETED:  # the interpreter multiplies the bit patterns of bf16
        return total + tl.dot(widened(x), widened(weight), input_precision="ieee")
    return tl.dot(x, weight, total)


@inline
def place(
    tile: tl.tensor,
    rows: tl.tensor,
    columns: tl.tensor,
    BLOCK_M: tl.constexpr,  # noqa: N803 # Triton's constants are written in capitals
    BLOCK_N: tl.constexpr,  # noqa: N803 # the same
    GROUP: tl.constexpr,  # noqa: N803 # the same
) -> tuple[tl.tensor, tl.tensor]:
    """Return row and column of a tile; bands of ``GROUP`` tile rows keep their operands in the L2 cache."""
    tiles_m, tiles_n = (rows + BLOCK_M - 1) // BLOCK_M, (columns + BLOCK_N - 1) // BLOCK_N
    band = tile // (GROUP * tiles_n) * GROUP
    height = tl.minimum(tiles_m - band, GROUP)
    inside = tile % (GROUP * tiles_n)
    return (band + inside % height) * BLOCK_M, inside // height * BLOCK_N


@inline
def finish(
    total: tl.tensor,
    bias_ptr: tl.tensor,
    first_column: tl.tensor,
    columns: tl.tensor,
    WIDTH: tl.constexpr,  # noqa: N803 # Triton's constants are written in capitals
    ACTIVATION: tl.constexpr,  # noqa: N803 # the same
    dtype: tl.constexpr,
) -> tl.tensor:
    """Return the sums ``[rows, WIDTH]`` of some columns with bias and activation, rounded."""
    column = first_column + tl.arange(0, WIDTH)[None, :]
    bias = widened(tl.load(bias_ptr + column, mask=column < columns, other=0.0))
    return rounded(activate(total + bias, ACTIVATION), dtype)


@inline
def fetch_ahead(
    weight_ptr: tl.tensor,
    weight_stride: tl.tensor,
    first_column: tl.tensor,
    columns: tl.tensor,
    COUNT: tl.constexpr,  # noqa: N803 # Triton's constants are written in capitals
    LINES: tl.constexpr,  # noqa: N803 # the same
) -> None:
    """Fetch the first ``LINES`` cache lines of ``COUNT`` weight rows into the L2 cache, without waiting for them."""
    width: tl.constexpr = 1024 // weight_ptr.dtype.element_ty.primitive_bitwidth  # elements in 128 bytes
    column = tl.minimum(first_column + tl.arange(0, COUNT), columns - 1).to(tl.int64)[None, :]
    lines = weight_ptr + column * weight_stride + width * tl.arange(0, LINES)[:, None]  # [LINES, COUNT]
    tl.inline_asm_elementwise(
        "prefetch.global.L2 [$1]; mov.u32 $0, 0;", "=r,l", [lines.to(tl.int64)], tl.int32, is_pure=False, pack=1
    )


@_general
def linear_kernel(
    x_ptr: tl.tensor,
    weight_ptr: tl.tensor,
    bias_ptr: tl.tensor,
    out_ptr: tl.tensor,
    x_stride: tl.tensor,
    weight_stride: tl.tensor,
    out_stride: tl.tensor,
    rows: tl.tensor,
    columns: tl.tensor,
    hidden: tl.tensor,
    ACTIVATION: tl.constexpr,  # noqa: N803 # Triton's constants are written in capitals
    BLOCK_M: tl.constexpr,  # noqa: N803 # the same
    BLOCK_N: tl.constexpr,  # noqa: N803 # the same
    BLOCK_K: tl.constexpr,  # noqa: N803 # the same
    GROUP: tl.constexpr,  # noqa: N803 # the same
    WIDE: tl.constexpr,  # noqa: N803 # the same
    EVEN: tl.constexpr,  # noqa: N803 # the same
    EARLY: tl.constexpr,  # noqa: N803 # the same
    AHEAD: tl.constexpr,  # noqa: N803 # the same
) -> None:
    """Write ``activate(x @ weight.T + bias)``, one tile a program.

    ``WIDE``: all sizes and strides are multiples of 8; ``EVEN``: ``hidden`` is one of ``BLOCK_K``. ``EARLY``: the
    kernel was launched before the end of the one that writes ``x``; it fetches the first ``AHEAD`` cache lines of each
    of its weight rows into the L2 cache, then waits.
    """
    if WIDE:  # says so to the compiler
        x_stride, weight_stride, out_stride = x_stride // 8 * 8, weight_stride // 8 * 8, out_stride // 8 * 8
        columns, hidden = columns // 8 * 8, hidden // 8 * 8
    first_row, first_column = place(tl.program_id(0), rows, columns, BLOCK_M, BLOCK_N, GROUP)
    row = (first_row + tl.arange(0, BLOCK_M)).to(tl.int64)[:, None]  # [BLOCK_M, 1]
    column = (first_column + tl.arange(0, BLOCK_N)).to(tl.int64)[None, :]  # [1, BLOCK_N]
    k = tl.arange(0, BLOCK_K)
    x_at = x_ptr + row * x_stride + k[None, :]  # [BLOCK_M, BLOCK_K]
    weight_at = weight_ptr + column * weight_stride + k[:, None]  # [BLOCK_K, BLOCK_N]
    if AHEAD:
        fetch_ahead(weight_ptr, weight_stride, first_column, columns, BLOCK_N, AHEAD)
    if EARLY:
        tl.extra.cuda.gdc_wait()
    total = tl.full((BLOCK_M, BLOCK_N), 0.0, tl.float32)
    lost = tl.full((BLOCK_M, BLOCK_N), 0.0, tl.float32)
    for start in range(0, hidden, BLOCK_K):
        x_inside, weight_inside = row < rows, column < columns
        if not EVEN:
            x_inside &= start + k[None, :] < hidden
            weight_inside &= start + k[:, None] < hidden
        x = tl.load(x_at + start, mask=x_inside, other=0.0)
        weight = tl.load(weight_at + start, mask=weight_inside, other=0.0)
        if x_ptr.dtype.element_ty == tl.float32 and not _INTERPRETED:  # Kahan's sum of the blocks: cuBLAS splits too
            term = tl.dot(x, weight, input_precision="ieee") - lost
            sum_ = total + term
            lost = (sum_ - total) - term
            total = sum_
        else:
            total = product(x, weight, total)
    y = finish(total, bias_ptr, first_column, columns, BLOCK_N, ACTIVATION, out_ptr.dtype.element_ty)
    tl.store(out_ptr + row * out_stride + column, y, mask=(row < rows) & (column < columns))


@_general
def descriptor_kernel(
    x_tiles: tl.tensor,
    weight_tiles: tl.tensor,
    weight_ptr: tl.tensor,
    bias_ptr: tl.tensor,
    out_tiles: tl.tensor,
    weight_stride: tl.tensor,
    rows: tl.tensor,
    columns: tl.tensor,
    hidden: tl.tensor,
    ACTIVATION: tl.constexpr,  # noqa: N803 # Triton's constants are written in capitals
    BLOCK_M: tl.constexpr,  # noqa: N803 # the same
    BLOCK_N: tl.constexpr,  # noqa: N803 # the same
    BLOCK_K: tl.constexpr,  # noqa: N803 # the same
    GROUP: tl.constexpr,  # noqa: N803 # the same
    PROGRAMS: tl.constexpr,  # noqa: N803 # the same
    EARLY: tl.constexpr,  # noqa: N803 # the same
    AHEAD: tl.constexpr,  # noqa: N803 # the same
) -> None:
    """Write ``activate(x @ weight.T + bias)``; each of ``PROGRAMS`` programs works through tiles.

    The three ``…_tiles`` are tensor descriptors with blocks ``[BLOCK_M, BLOCK_K]``, ``[BLOCK_N, BLOCK_K]`` and
    ``[BLOCK_M, BLOCK_N]``: the copy engine moves whole tiles, reads zeros beyond the edges and writes nothing there.
    ``EARLY`` and ``AHEAD`` as above.
    """
    if AHEAD:
        _, first_column = place(tl.program_id(0), rows, columns, BLOCK_M, BLOCK_N, GROUP)
        fetch_ahead(weight_ptr, weight_stride, first_column, columns, BLOCK_N, AHEAD)
    if EARLY:
        tl.extra.cuda.gdc_wait()
    tiles = ((rows + BLOCK_M - 1) // BLOCK_M) * ((columns + BLOCK_N - 1) // BLOCK_N)
    for tile in tl.range(tl.program_id(0), tiles, PROGRAMS, flatten=True):
        row, column = place(tile, rows, columns, BLOCK_M, BLOCK_N, GROUP)
        total = tl.full((BLOCK_M, BLOCK_N), 0.0, tl.float32)
        for start in range(0, hidden, BLOCK_K):
            x = x_tiles.load([row, start])
            weight = weight_tiles.load([column, start])
            total = product(x, weight.T, total)
        y = finish(total, bias_ptr, column, columns, BLOCK_N, ACTIVATION, out_tiles.dtype)
        out_tiles.store([row, column], y)
