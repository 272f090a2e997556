"""The kernel of :mod:`gaugeblock.kernels._int8_linear_hopper`, in Gluon of Triton 3.6 to 3.9."""

# Gluon's values have no types that a checker knows:
# mypy: allow-untyped-defs, allow-untyped-calls, allow-incomplete-defs
# ruff: noqa: N803, N806 # constants are written in capitals

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from gaugeblock.kernels import _int8_linear_hopper as host

jit: Callable[[Callable[..., Any]], Any] = gluon.jit
any_sizes = partial(gluon.jit, do_not_specialize=("x_scale_stride", "rows", "columns", "depth"))

load_box = getattr(tma, "async_load", None) or tma.async_copy_global_to_shared  # the names of 3.9, or those of 3.6
store_box = getattr(tma, "async_store", None) or tma.async_copy_shared_to_global
barrier = getattr(gl, "barrier", None) or gl.thread_barrier
STEP = gl.constexpr(host.STEP)
SLICE = gl.constexpr(host.SLICE)
OUT_BOXES = gl.constexpr(2)  # of each consumer: one is filled while the other is stored


def boxes(matrix: torch.Tensor, rows: int, columns: int) -> Any:
    """Return a descriptor of a matrix, from or to which boxes of ``[rows, columns]`` are copied."""
    size = matrix.element_size()
    layout = gl.NVMMASharedLayout(min(columns * size, 128), 8 * size, 2)
    return TensorDescriptor(matrix, list(matrix.shape), list(matrix.stride()), [rows, columns], layout)


@jit
def _place(tile, tiles_m, tiles_n, ROWS: gl.constexpr, CHANNELS: gl.constexpr, GROUP: gl.constexpr):
    """Return a tile's first row and channel: GROUP rows of tiles are visited column by column."""
    first = tile // (GROUP * tiles_n) * GROUP
    within = tile % (GROUP * tiles_n)
    height = gl.minimum(tiles_m - first, GROUP)
    return (first + within % height) * ROWS, within // height * CHANNELS


@jit
def _after(stage, phase, STAGES: gl.constexpr):
    """Return the stage after this one, and the parity that its barriers are waited for with: it flips every lap."""
    wraps = stage + 1 == STAGES
    return gl.where(wraps, 0, stage + 1), gl.where(wraps, phase ^ 1, phase)


@jit
def _produce(
    x_source,
    w_source,
    x_boxes,
    w_boxes,
    full,
    empty,
    tiles_m,
    tiles_n,
    steps,
    ROWS: gl.constexpr,
    CHANNELS: gl.constexpr,
    DOWN: gl.constexpr,
    ACROSS: gl.constexpr,
    STAGES: gl.constexpr,
    GROUP: gl.constexpr,
):
    """Load the operands of every tile of this program, step by step, each as soon as its stage is empty.

    What lies outside of x and w arrives as zeros, and counts as bytes.
    """
    stage = gl.to_tensor(0)
    phase = gl.to_tensor(1)  # no consumer empties a new ring: a wait for the phase before the first passes
    for tile in range(gl.program_id(0), tiles_m * tiles_n, gl.num_programs(0)):
        m, n = _place(tile, tiles_m, tiles_n, DOWN * ROWS, ACROSS * CHANNELS, GROUP)
        for step in range(steps):
            mbarrier.wait(empty.index(stage), phase)
            arrived = full.index(stage)
            mbarrier.expect(arrived, (DOWN * ROWS + ACROSS * CHANNELS) * STEP)
            for i in gl.static_range(DOWN):
                load_box(x_source, [m + i * ROWS, step * STEP], arrived, x_boxes.index(stage * DOWN + i))
            for i in gl.static_range(ACROSS):
                load_box(w_source, [n + i * CHANNELS, step * STEP], arrived, w_boxes.index(stage * ACROSS + i))
            stage, phase = _after(stage, phase, STAGES)


@jit
def _multiply(
    x_boxes,
    w_boxes,
    full,
    empty,
    stage,
    phase,
    steps,
    BELOW: gl.constexpr,
    BESIDE: gl.constexpr,
    ROWS: gl.constexpr,
    CHANNELS: gl.constexpr,
    DOWN: gl.constexpr,
    ACROSS: gl.constexpr,
    STAGES: gl.constexpr,
):
    """Return a consumer's sums, ``[ROWS, CHANNELS]``, and where the ring stands behind them.

    The products of one step end before its stage is given back; meanwhile the other consumer's fill the tensor cores.
    """
    layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, CHANNELS, 32])
    acc = gl.full([ROWS, CHANNELS], 0, gl.int32, layout)
    for step in range(steps):
        mbarrier.wait(full.index(stage), phase)
        x_box = x_boxes.index(stage * DOWN + BELOW)
        w_box = w_boxes.index(stage * ACROSS + BESIDE).permute((1, 0))
        acc = warpgroup_mma(x_box, w_box, acc, use_acc=step > 0, is_async=True)
        acc = warpgroup_mma_wait(0, deps=[acc])
        mbarrier.arrive(empty.index(stage), count=1)
        stage, phase = _after(stage, phase, STAGES)
    return acc, stage, phase


@jit
def _slices(sums, COUNT: gl.constexpr):
    """Split by columns into COUNT tensors in the tensor cores' layout: no number leaves its thread."""
    if COUNT == 1:
        return (sums,)
    else:  # noqa: RET505 # Gluon compiles both branches of what does not end in else
        ROWS: gl.constexpr = sums.shape[0]
        HALF: gl.constexpr = sums.shape[1] // 2
        layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, HALF, 32])
        left, right = sums.reshape([ROWS, 2, HALF]).permute(0, 2, 1).split()
        left = gl.convert_layout(left, layout, assert_trivial=True)
        right = gl.convert_layout(right, layout, assert_trivial=True)
        return _slices(left, COUNT // 2) + _slices(right, COUNT // 2)


@jit
def _write(acc, x_scales, w_scales, biases, out_sink, out_boxes, m, n, WHO: gl.constexpr, CHANNELS: gl.constexpr):
    """Scale a consumer's sums, add the bias, round, and store from row m and column n on.

    The threads write a slice into a box of shared memory, the fence makes that visible to the accelerator, and behind
    the barrier one of them tells it to store. Nobody waits for that, but for the store before: its box comes next.
    """
    layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, SLICE, 32])
    x_scale = x_scales.load(gl.SliceLayout(1, layout))
    slices = _slices(acc, CHANNELS // SLICE)
    for i in gl.static_range(CHANNELS // SLICE):
        w_scale = w_scales.slice(i * SLICE, SLICE).load(gl.SliceLayout(0, layout))
        bias = biases.slice(i * SLICE, SLICE).load(gl.SliceLayout(0, layout)).to(gl.float32)
        value = slices[i].to(gl.float32) * w_scale[None, :] * x_scale[:, None] + bias[None, :]
        box = out_boxes.index(WHO * OUT_BOXES + i % OUT_BOXES)
        tma.store_wait(OUT_BOXES - 1)
        barrier()
        box.store(value.to(out_sink.dtype))
        fence_async_shared()
        barrier()
        store_box(out_sink, [m, n + i * SLICE], box)


@jit
def _consume(
    x_boxes,
    w_boxes,
    full,
    empty,
    x_scale_ptr,
    w_scale_ptr,
    bias_ptr,
    out_sink,
    x_scales,
    w_scales,
    biases,
    out_boxes,
    x_scale_stride,
    rows,
    columns,
    tiles_m,
    tiles_n,
    steps,
    WHO: gl.constexpr,
    ROWS: gl.constexpr,
    CHANNELS: gl.constexpr,
    DOWN: gl.constexpr,
    ACROSS: gl.constexpr,
    STAGES: gl.constexpr,
    GROUP: gl.constexpr,
):
    """Compute one half of every tile of this program: WHO is 0 or 1."""
    BELOW: gl.constexpr = WHO if DOWN == 2 else 0
    BESIDE: gl.constexpr = WHO if ACROSS == 2 else 0
    line: gl.constexpr = gl.BlockedLayout([1], [32], [4], [0])
    stage = gl.to_tensor(0)
    phase = gl.to_tensor(0)
    for tile in range(gl.program_id(0), tiles_m * tiles_n, gl.num_programs(0)):
        m, n = _place(tile, tiles_m, tiles_n, DOWN * ROWS, ACROSS * CHANNELS, GROUP)
        m += BELOW * ROWS
        n += BESIDE * CHANNELS
        row = m + gl.arange(0, ROWS, line)
        col = n + gl.arange(0, CHANNELS, line)
        x_scale = gl.load(x_scale_ptr + row.to(gl.int64) * x_scale_stride, mask=row < rows, other=0.0)
        w_scale = gl.load(w_scale_ptr + col, mask=col < columns, other=0.0)
        bias = gl.load(bias_ptr + col, mask=col < columns, other=0.0)
        acc, stage, phase = _multiply(
            x_boxes, w_boxes, full, empty, stage, phase, steps, BELOW, BESIDE, ROWS, CHANNELS, DOWN, ACROSS, STAGES
        )
        x_scales.store(x_scale)  # through shared memory every thread finds those of its own sums
        w_scales.store(w_scale)
        biases.store(bias)
        barrier()
        _write(acc, x_scales, w_scales, biases, out_sink, out_boxes, m, n, WHO, CHANNELS)
    tma.store_wait(0)


@any_sizes
def _int8_linear_hopper_kernel(
    x_source,
    w_source,
    out_sink,
    x_scale_ptr,
    w_scale_ptr,
    bias_ptr,
    x_scale_stride,
    rows,
    columns,
    depth,
    ROWS: gl.constexpr,  # of a consumer
    CHANNELS: gl.constexpr,  # of a consumer
    DOWN: gl.constexpr,  # consumers below each other in a tile
    ACROSS: gl.constexpr,  # and beside each other: 2 together
    STAGES: gl.constexpr,
    GROUP: gl.constexpr,
):
    tiles_m = (rows + DOWN * ROWS - 1) // (DOWN * ROWS)
    tiles_n = (columns + ACROSS * CHANNELS - 1) // (ACROSS * CHANNELS)
    steps = (depth + STEP - 1) // STEP
    x_boxes = gl.allocate_shared_memory(gl.int8, [STAGES * DOWN, ROWS, STEP], x_source.layout)
    w_boxes = gl.allocate_shared_memory(gl.int8, [STAGES * ACROSS, CHANNELS, STEP], w_source.layout)
    out_boxes = gl.allocate_shared_memory(out_sink.dtype, [2 * OUT_BOXES, ROWS, SLICE], out_sink.layout)
    plain: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [0])
    x_scales = gl.allocate_shared_memory(gl.float32, [2, ROWS], plain)
    w_scales = gl.allocate_shared_memory(gl.float32, [2, CHANNELS], plain)
    biases = gl.allocate_shared_memory(out_sink.dtype, [2, CHANNELS], plain)
    full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for i in gl.static_range(STAGES):
        mbarrier.init(full.index(i), count=1)
        mbarrier.init(empty.index(i), count=2)
    fence_async_shared()
    barrier()
    # the argument lists are written out: a tuple in a variable would turn constants into values
    gl.warp_specialize(
        [
            (
                _consume,
                (
                    x_boxes,
                    w_boxes,
                    full,
                    empty,
                    x_scale_ptr,
                    w_scale_ptr,
                    bias_ptr,
                    out_sink,
                    x_scales.index(0),
                    w_scales.index(0),
                    biases.index(0),
                    out_boxes,
                    x_scale_stride,
                    rows,
                    columns,
                    tiles_m,
                    tiles_n,
                    steps,
                    0,
                    ROWS,
                    CHANNELS,
                    DOWN,
                    ACROSS,
                    STAGES,
                    GROUP,
                ),
            ),
            (
                _consume,
                (
                    x_boxes,
                    w_boxes,
                    full,
                    empty,
                    x_scale_ptr,
                    w_scale_ptr,
                    bias_ptr,
                    out_sink,
                    x_scales.index(1),
                    w_scales.index(1),
                    biases.index(1),
                    out_boxes,
                    x_scale_stride,
                    rows,
                    columns,
                    tiles_m,
                    tiles_n,
                    steps,
                    1,
                    ROWS,
                    CHANNELS,
                    DOWN,
                    ACROSS,
                    STAGES,
                    GROUP,
                ),
            ),
            (
                _produce,
                (
                    x_source,
                    w_source,
                    x_boxes,
                    w_boxes,
                    full,
                    empty,
                    tiles_m,
                    tiles_n,
                    steps,
                    ROWS,
                    CHANNELS,
                    DOWN,
                    ACROSS,
                    STAGES,
                    GROUP,
                ),
            ),
        ],
        [4, 1],
        [240, 24],
    )
