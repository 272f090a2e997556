"""The kernel of :mod:`gaugeblock.kernels._extend_attention_hopper`, in Gluon of Triton 3.6 to 3.9."""

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

from gaugeblock.kernels._extend_attention_triton import UNSPECIALISED

jit: Callable[[Callable[..., Any]], Any] = gluon.jit
one_binary = partial(gluon.jit, do_not_specialize=UNSPECIALISED)

load_box = getattr(tma, "async_load", None) or tma.async_copy_global_to_shared  # the names of 3.9, or those of 3.6
barrier = getattr(gl, "barrier", None) or gl.thread_barrier
NEW_NAMES = gl.constexpr(hasattr(gl.shared_memory_descriptor, "reinterpret"))
ROWS = gl.constexpr(64)  # of a consumer: what four warps multiply at once


def boxes(cache: torch.Tensor, slots: int, columns: int) -> Any:
    """Return a descriptor of a cache as one matrix of slots, from which boxes of ``[slots, columns]`` are loaded."""
    pages, page_size, kv_heads, head_dim = cache.shape
    _, slot, head, _ = cache.stride()
    shape = [pages * page_size, (kv_heads - 1) * head + head_dim]
    return TensorDescriptor(cache, shape, [slot, 1], [slots, columns], gl.NVMMASharedLayout(128, 16, 2))


@jit
def _as_tiles(pieces, TILES: gl.constexpr, KEYS: gl.constexpr, HEAD_DIM: gl.constexpr):
    if NEW_NAMES:
        tiles = pieces.reinterpret(pieces.dtype, [TILES, KEYS, HEAD_DIM], pieces.layout)
    else:
        tiles = pieces._reinterpret(pieces.dtype, [TILES, KEYS, HEAD_DIM], pieces.layout)
    return tiles


@jit
def _load_tile(
    source,
    pieces,
    full,
    empty,
    table_ptr,
    tile,
    last_page,
    column,
    PAGE: gl.constexpr,
    KEYS: gl.constexpr,
    HEAD_DIM: gl.constexpr,
    STAGES: gl.constexpr,
    BOX: gl.constexpr,
):
    """Load one tile of K or V, box by box, once its stage is empty.

    A tile lies in shared memory as columns 0 … 63 of all its rows, then columns 64 … 127.
    """
    stage = tile % STAGES
    mbarrier.wait(empty.index(stage), (tile // STAGES & 1) ^ 1)
    mbarrier.expect(full.index(stage), KEYS * HEAD_DIM * 2)
    for i in gl.static_range(KEYS // BOX):
        key = tile * KEYS + i * BOX
        page = gl.load(table_ptr + gl.minimum(key // PAGE, last_page)).to(gl.int32)
        for half in gl.static_range(HEAD_DIM // 64):
            piece = pieces.index((stage * (HEAD_DIM // 64) + half) * (KEYS // BOX) + i)
            load_box(source, [page * PAGE + key % PAGE, column + half * 64], full.index(stage), piece)


@jit
def _produce(
    k_source,
    v_source,
    k_pieces,
    v_pieces,
    k_full,
    k_empty,
    v_full,
    v_empty,
    table_ptr,
    tiles,
    last_page,
    k_column,
    v_column,
    PAGE: gl.constexpr,
    KEYS: gl.constexpr,
    HEAD_DIM: gl.constexpr,
    STAGES: gl.constexpr,
    BOX: gl.constexpr,
):
    for tile in range(tiles):
        _load_tile(
            k_source, k_pieces, k_full, k_empty, table_ptr, tile, last_page, k_column, PAGE, KEYS, HEAD_DIM, STAGES, BOX
        )
        _load_tile(
            v_source, v_pieces, v_full, v_empty, table_ptr, tile, last_page, v_column, PAGE, KEYS, HEAD_DIM, STAGES, BOX
        )


@jit
def _consume(
    q_ptr,
    out_ptr,
    q_tile,
    k_tiles,
    v_tiles,
    k_full,
    k_empty,
    v_full,
    v_empty,
    scale_log2,
    q_token,
    q_head,
    out_token,
    out_head,
    q_start,
    q_len,
    token_0,
    head_0,
    prefix,
    seq_len,
    tiles,
    whole_tiles,
    ROW_0: gl.constexpr,
    TOKENS: gl.constexpr,
    HEADS: gl.constexpr,
    HEAD_DIM: gl.constexpr,
    KEYS: gl.constexpr,
    STAGES: gl.constexpr,
):
    dtype: gl.constexpr = q_ptr.dtype.element_ty
    s_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, KEYS, 16])
    o_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, HEAD_DIM, 16])
    p_layout: gl.constexpr = gl.DotOperandLayout(0, o_layout, 2)
    rows_s: gl.constexpr = gl.SliceLayout(1, s_layout)
    rows_o: gl.constexpr = gl.SliceLayout(1, o_layout)
    wide: gl.constexpr = gl.BlockedLayout([1, 8], [256 // HEAD_DIM, HEAD_DIM // 8], [4, 1], [1, 0])  # 16 bytes a thread

    row = ROW_0 + gl.arange(0, ROWS, gl.SliceLayout(1, wide))
    token = token_0 + row // HEADS
    inside = (token < q_len) & (row < TOKENS * HEADS)
    dim = gl.arange(0, HEAD_DIM, gl.SliceLayout(0, wide))
    where_q = (q_start + token).to(gl.int64)[:, None] * q_token + (head_0 + row % HEADS)[:, None] * q_head
    q_tile.store(gl.load(q_ptr + where_q + dim[None, :], mask=inside[:, None], other=0.0))
    fence_async_shared()
    barrier()

    position = gl.minimum(prefix + token_0 + (ROW_0 + gl.arange(0, ROWS, rows_s)) // HEADS, seq_len - 1)
    key = gl.arange(0, KEYS, gl.SliceLayout(0, s_layout))
    nothing = gl.full([ROWS, KEYS], 0.0, gl.float32, s_layout)
    mbarrier.wait(k_full.index(0), 0)
    logits = warpgroup_mma(q_tile, k_tiles.index(0).permute((1, 0)), nothing, use_acc=False, is_async=True)
    logits = warpgroup_mma_wait(0, deps=[logits])
    mbarrier.arrive(k_empty.index(0), count=1)
    logits = gl.where(key[None, :] <= position[:, None], logits, float("-inf"))
    largest = gl.max(logits, 1) * scale_log2
    e = gl.exp2(logits * scale_log2 - largest[:, None])
    total = gl.sum(e, 1)
    mbarrier.wait(v_full.index(0), 0)
    acc = gl.full([ROWS, HEAD_DIM], 0.0, gl.float32, o_layout)
    for masked in gl.static_range(2):  # first the tiles that every row sees whole, then those on the diagonal
        begin = gl.maximum(whole_tiles, 1) if masked else 1
        end = tiles if masked else whole_tiles
        for tile in range(begin, end):
            stage = tile % STAGES
            before = (tile - 1) % STAGES
            mbarrier.wait(k_full.index(stage), tile // STAGES & 1)
            logits = warpgroup_mma(q_tile, k_tiles.index(stage).permute((1, 0)), nothing, use_acc=False, is_async=True)
            p = gl.convert_layout(e.to(dtype), p_layout)  # carried in fp32: halves would be packed and unpacked
            acc = warpgroup_mma(p, v_tiles.index(before), acc, is_async=True)
            logits = warpgroup_mma_wait(1, deps=[logits])
            mbarrier.arrive(k_empty.index(stage), count=1)
            if masked:
                logits = gl.where((tile * KEYS + key)[None, :] <= position[:, None], logits, float("-inf"))
            new = gl.maximum(largest, gl.max(logits, 1) * scale_log2)
            e = gl.exp2(logits * scale_log2 - new[:, None])
            rescale = gl.exp2(largest - new)
            total = total * rescale + gl.sum(e, 1)
            largest = new
            mbarrier.wait(v_full.index(stage), tile // STAGES & 1)  # a branch: ptxas would put the exponentials behind
            acc = warpgroup_mma_wait(0, deps=[acc])
            mbarrier.arrive(v_empty.index(before), count=1)
            acc = acc * gl.convert_layout(rescale, rows_o)[:, None]
    stage = (tiles - 1) % STAGES
    if tiles * KEYS > seq_len:  # what lies behind the end may be NaN; each consumer writes the same zeros
        slot = (tiles - 1) * KEYS + gl.arange(0, KEYS, gl.SliceLayout(1, wide))
        v = v_tiles.index(stage).load(wide)
        v_tiles.index(stage).store(gl.where((slot < seq_len)[:, None], v, 0.0))
        fence_async_shared()
        barrier()
    acc = warpgroup_mma(gl.convert_layout(e.to(dtype), p_layout), v_tiles.index(stage), acc, is_async=True)
    acc = warpgroup_mma_wait(0, deps=[acc])

    row_o = ROW_0 + gl.arange(0, ROWS, rows_o)
    token_o = token_0 + row_o // HEADS
    inside_o = (token_o < q_len) & (row_o < TOKENS * HEADS)
    dim_o = gl.arange(0, HEAD_DIM, gl.SliceLayout(0, o_layout))
    where_o = (q_start + token_o).to(gl.int64)[:, None] * out_token + (head_0 + row_o % HEADS)[:, None] * out_head
    out = acc / gl.convert_layout(total, rows_o)[:, None]
    gl.store(out_ptr + where_o + dim_o[None, :], out.to(dtype), mask=inside_o[:, None])


@one_binary
def _extend_attention_hopper_kernel(
    q_ptr,
    k_source,
    v_source,
    table_ptr,
    lens_ptr,
    starts_ptr,
    out_ptr,
    scale_log2,
    q_token,
    q_head,
    k_head,
    v_head,
    table_row,
    out_token,
    out_head,
    requests,
    GROUP: gl.constexpr,
    HEADS: gl.constexpr,
    HEAD_DIM: gl.constexpr,
    PAGE: gl.constexpr,
    KEYS: gl.constexpr,
    STAGES: gl.constexpr,
    BOX: gl.constexpr,
):
    TOKENS: gl.constexpr = 2 * ROWS // HEADS
    PIECES: gl.constexpr = STAGES * (HEAD_DIM // 64) * (KEYS // BOX)
    dtype: gl.constexpr = q_ptr.dtype.element_ty
    program = gl.num_programs(0) - 1 - gl.program_id(0)  # the tiles that see most come first
    request = gl.to_tensor(-1)  # the last whose first tile is not behind this program
    for other_0 in range(0, requests, 128):
        other = other_0 + gl.arange(0, 128, gl.BlockedLayout([1], [32], [4], [0]))
        first = gl.load(starts_ptr + other, mask=other < requests, other=0).to(gl.int32) // TOKENS + other
        request += gl.sum(((first <= program) & (other < requests)).to(gl.int32), 0)
    q_start = gl.load(starts_ptr + request).to(gl.int32)
    q_len = gl.load(starts_ptr + request + 1).to(gl.int32) - q_start
    token_0 = (program - (q_start // TOKENS + request)) * TOKENS
    if token_0 >= q_len:
        return
    seq_len = gl.load(lens_ptr + request).to(gl.int32)
    prefix = seq_len - q_len
    head_0 = gl.program_id(1) * HEADS
    table_ptr += request.to(gl.int64) * table_row
    whole_tiles = (prefix + token_0 + 1) // KEYS
    tiles = (gl.minimum(prefix + token_0 + TOKENS, seq_len) + KEYS - 1) // KEYS
    last_page = (seq_len - 1) // PAGE

    layout: gl.constexpr = gl.NVMMASharedLayout(128, 16, 2)
    q_tiles = gl.allocate_shared_memory(dtype, [2, ROWS, HEAD_DIM], layout)
    k_pieces = gl.allocate_shared_memory(dtype, [PIECES, BOX, 64], layout)
    v_pieces = gl.allocate_shared_memory(dtype, [PIECES, BOX, 64], layout)
    k_tiles = _as_tiles(k_pieces, STAGES, KEYS, HEAD_DIM)
    v_tiles = _as_tiles(v_pieces, STAGES, KEYS, HEAD_DIM)
    k_full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    k_empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    v_full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    v_empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for i in gl.static_range(STAGES):
        mbarrier.init(k_full.index(i), count=1)
        mbarrier.init(v_full.index(i), count=1)
        mbarrier.init(k_empty.index(i), count=2)
        mbarrier.init(v_empty.index(i), count=2)
    fence_async_shared()
    barrier()
    # the argument lists are written out: a tuple in a variable would turn constants into values
    gl.warp_specialize(
        [
            (
                _consume,
                (
                    q_ptr,
                    out_ptr,
                    q_tiles.index(0),
                    k_tiles,
                    v_tiles,
                    k_full,
                    k_empty,
                    v_full,
                    v_empty,
                    scale_log2,
                    q_token,
                    q_head,
                    out_token,
                    out_head,
                    q_start,
                    q_len,
                    token_0,
                    head_0,
                    prefix,
                    seq_len,
                    tiles,
                    whole_tiles,
                    0,
                    TOKENS,
                    HEADS,
                    HEAD_DIM,
                    KEYS,
                    STAGES,
                ),
            ),
            (
                _consume,
                (
                    q_ptr,
                    out_ptr,
                    q_tiles.index(1),
                    k_tiles,
                    v_tiles,
                    k_full,
                    k_empty,
                    v_full,
                    v_empty,
                    scale_log2,
                    q_token,
                    q_head,
                    out_token,
                    out_head,
                    q_start,
                    q_len,
                    token_0,
                    head_0,
                    prefix,
                    seq_len,
                    tiles,
                    whole_tiles,
                    64,
                    TOKENS,
                    HEADS,
                    HEAD_DIM,
                    KEYS,
                    STAGES,
                ),
            ),
            (
                _produce,
                (
                    k_source,
                    v_source,
                    k_pieces,
                    v_pieces,
                    k_full,
                    k_empty,
                    v_full,
                    v_empty,
                    table_ptr,
                    tiles,
                    last_page,
                    head_0 // GROUP * k_head,
                    head_0 // GROUP * v_head,
                    PAGE,
                    KEYS,
                    HEAD_DIM,
                    STAGES,
                    BOX,
                ),
            ),
        ],
        [4, 1],
        [240, 24],
    )
