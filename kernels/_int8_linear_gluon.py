"""The kernel of :mod:`gaugeblock.kernels._int8_linear_early`, in Gluon of Triton 3.6 to 3.9."""

# Gluon's values have no types that a checker knows, and its tuples grow as a loop is unrolled:
# mypy: allow-untyped-defs, allow-untyped-calls, allow-incomplete-defs, disable-error-code="assignment"
# ruff: noqa: N803 # constants are written in capitals
# ruff: noqa: RUF005, SIM108 # the forms that Gluon compiles

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import async_copy, mma_v2
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

jit: Callable[[Callable[..., Any]], Any] = gluon.jit
any_batch = partial(gluon.jit, do_not_specialize=("x_scale_stride", "rows"))
constexpr_function: Callable[[Callable[..., Any]], Any] = gluon.constexpr_function

copy_line = getattr(async_copy, "async_load", None) or async_copy.async_copy_global_to_shared  # in 3.9, and before
barrier = getattr(gl, "barrier", None) or gl.thread_barrier
WARPS = gl.constexpr(8)
PIECE = gl.constexpr(64)  # elements of a channel that a warp multiplies in a step
STEP = gl.constexpr(512)  # what all warps do together


@constexpr_function
def _powers(begin, end, dim):
    """Return the bases of a linear layout along one of three dimensions: the powers of two from begin to end."""
    bases = []
    while begin < end:
        bases.append([begin if d == dim else 0 for d in range(3)])
        begin *= 2
    return bases


@constexpr_function
def _fragments(warps, rows, piece):
    """Return where an integer tensor core instruction wants ``[warps, rows, piece]``, each thread 16 bytes in a row.

    Lane 4g + t takes the t-th 16 bytes of rows g, g + 8, …: bytes 0…7 for one instruction, 8…15 for the next. That is
    another order of the summed index than the one in memory, the same for both operands.
    """
    lanes = _powers(16, piece, 2) + _powers(1, 8, 1)
    registers = _powers(1, 16, 2) + _powers(8, rows, 1)
    return gl.DistributedLinearLayout(registers, lanes, _powers(1, warps, 0), [], [warps, rows, piece])


@constexpr_function
def _lines(warps, rows, piece):
    """Return the layout in which a warp copies 512 bytes of a row at once, as memory likes it."""
    lanes = _powers(16, piece, 2) + _powers(1, warps, 0)
    registers = _powers(1, 16, 2) + _powers(warps, rows, 1)
    return gl.DistributedLinearLayout(registers, lanes, _powers(1, warps, 1), [], [warps, rows, piece])


@jit
def _index(layout: gl.constexpr):
    """Return where along the summed index the elements of a step lie, ``[WARPS, 1, PIECE]``."""
    warp = gl.arange(0, WARPS, gl.SliceLayout(1, gl.SliceLayout(2, layout)))
    piece = gl.arange(0, PIECE, gl.SliceLayout(0, gl.SliceLayout(1, layout)))
    return warp[:, None, None] * PIECE + piece[None, None, :]


@jit
def _numbers(first, COUNT: gl.constexpr, layout: gl.constexpr):
    """Return ``COUNT`` rows or channels from ``first`` on, ``[1, COUNT, 1]``."""
    return (first + gl.arange(0, COUNT, gl.SliceLayout(0, gl.SliceLayout(2, layout))))[None, :, None]


@jit
def _in_order(part, ROWS: gl.constexpr):
    """Return what a thread holds in the order of :func:`_fragments` in that of the instruction: nothing moves."""
    split = part.reshape([WARPS, ROWS, 4, 2, 2, 4])  # lane, instruction, half of it, bytes
    return split.permute([0, 1, 3, 4, 2, 5]).reshape([WARPS, ROWS, PIECE])


@jit
def _x_part(x_at, index, inside, depth, step):
    return gl.load(x_at + step * STEP, mask=inside & (index + step * STEP < depth), other=0)


@any_batch
def _int8_early_kernel(
    x,
    x_scale_ptr,
    w,
    w_scale_ptr,
    bias_ptr,
    out,
    x_stride,
    x_scale_stride,
    w_stride,
    out_stride,
    rows,
    columns,
    depth,
    ROWS: gl.constexpr,
    CHANNELS: gl.constexpr,
    STEPS: gl.constexpr,
    HELD: gl.constexpr,  # steps of the weights in shared memory; the rest, which come last, in registers
    FLYING: gl.constexpr,  # steps of x under way at once
    EARLY: gl.constexpr,
):
    fragments_w: gl.constexpr = _fragments(WARPS, CHANNELS, PIECE)
    fragments_x: gl.constexpr = _fragments(WARPS, ROWS, PIECE)
    lines: gl.constexpr = _lines(WARPS, CHANNELS, PIECE)
    product: gl.constexpr = gl.NVMMADistributedLayout([2, 0], [WARPS, 1, 1], [1, 16, 8])
    summed: gl.constexpr = gl.BlockedLayout([WARPS, 2, 1], [1, 16, 2], [1, 1, WARPS], [1, 2, 0])
    result: gl.constexpr = gl.BlockedLayout([2, 1], [16, 2], [1, WARPS], [0, 1])

    blocks = (columns + CHANNELS - 1) // CHANNELS
    col_0 = gl.program_id(0) % blocks * CHANNELS
    row_0 = gl.program_id(0) // blocks * ROWS
    gdc_launch_dependents()
    if not EARLY:
        gdc_wait()

    k = _index(lines)
    col = _numbers(col_0, CHANNELS, lines)
    w_at = w + col.to(gl.int64) * w_stride + k
    held = gl.allocate_shared_memory(
        gl.int8, [HELD, WARPS, CHANNELS, PIECE], gl.SwizzledSharedLayout(1, 1, 1, [2, 1, 0])
    )
    for step in gl.static_range(HELD):
        copy_line(held.index(step), w_at + step * STEP, (col < columns) & (k + step * STEP < depth))
    async_copy.commit_group()

    k = _index(fragments_w)
    col = _numbers(col_0, CHANNELS, fragments_w)
    w_at = w + col.to(gl.int64) * w_stride + k
    rest = ()
    for step in gl.static_range(HELD, STEPS):
        inside = (col < columns) & (k + step * STEP < depth)
        rest = rest + (gl.load(w_at + step * STEP, mask=inside, other=0),)

    col = col_0 + gl.arange(0, CHANNELS, gl.SliceLayout(1, result))
    row = row_0 + gl.arange(0, ROWS, gl.SliceLayout(0, result))
    w_scale = gl.load(w_scale_ptr + col, mask=col < columns, other=0.0)
    bias = gl.load(bias_ptr + col, mask=col < columns, other=0.0)
    if EARLY:
        gdc_wait()

    k = _index(fragments_x)
    token = _numbers(row_0, ROWS, fragments_x)
    x_at = x + token.to(gl.int64) * x_stride + k
    flying = ()
    for step in gl.static_range(FLYING):
        flying = flying + (_x_part(x_at, k, token < rows, depth, step),)
    x_scale = gl.load(x_scale_ptr + row.to(gl.int64) * x_scale_stride, mask=row < rows, other=0.0)
    async_copy.wait_group(0)
    barrier()  # no product may come before it: none of x would be asked for until the first of x is there
    acc = gl.full([WARPS, CHANNELS, ROWS], 0, gl.int32, product)
    for step in gl.static_range(STEPS):
        if step < HELD:
            w_part = held.index(step).load(fragments_w)
        else:
            w_part = rest[step - HELD]
        a = gl.convert_layout(_in_order(w_part, CHANNELS), gl.DotOperandLayout(0, product, 4), assert_trivial=True)
        x_part = _in_order(flying[step], ROWS).permute([0, 2, 1])
        b = gl.convert_layout(x_part, gl.DotOperandLayout(1, product, 4), assert_trivial=True)
        acc = mma_v2(a, b, acc)
        if step + FLYING < STEPS:
            flying = flying + (_x_part(x_at, k, token < rows, depth, step + FLYING),)

    total = gl.convert_layout(gl.sum(gl.convert_layout(acc, summed), 0), result)
    value = total.to(gl.float32) * w_scale[:, None] * x_scale[None, :] + bias.to(gl.float32)[:, None]
    at = out + row.to(gl.int64)[None, :] * out_stride + col[:, None]
    gl.store(at, value.to(out.dtype.element_ty), mask=(col < columns)[:, None] & (row < rows)[None, :])
