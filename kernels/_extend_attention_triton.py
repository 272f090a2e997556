"""Extend attention in Triton: one program computes a tile of query rows of one request against all that they see.

A tile's rows are some tokens times the query heads that share a KV head, so that a group reads each K and V tile once.
Which request a program works for is found on the device by a search over ``q_starts``: the grid depends on shapes alone
(a CUDA graph can hold it). Query tiles start at a request's first new token and KV tiles at position 0, whatever else
is in the batch; a key that a row does not see leaves no trace in it (p = 0, rescaled by 1), so a token has the same
bits in any batch and in any chunk.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch

from gaugeblock.kernels.rounding import rounded, widened
from gaugeblock.kernels.runtime import INTERPRETED, add, jit, maximum, quiet, tl

_INTERPRETED = tl.constexpr(INTERPRETED)  # kernels read no other kind of global
# whether these are multiples of 16 is worth no other binary: one for all batches
UNSPECIALISED = ("table_ptr", "lens_ptr", "starts_ptr", "requests", "table_row")
one_binary = partial(cast("Any", jit), do_not_specialize=UNSPECIALISED)


@dataclass(frozen=True)
class Config:
    """Query rows and keys of a tile in fp16 and bf16, warps, and stages of the pipeline that loads K and V.

    fp32 is multiplied without tensor cores and takes a quarter of both.
    """

    rows: int
    keys: int
    warps: int
    stages: int

    def tile(self, dtype: torch.dtype) -> tuple[int, int]:
        """Return query rows and keys of a tile."""
        whole = dtype != torch.float32 or INTERPRETED
        return (self.rows, self.keys) if whole else (self.rows // 4, self.keys // 4)


@one_binary
def _extend_attention_kernel(
    q_ptr: tl.tensor,
    k_ptr: tl.tensor,
    v_ptr: tl.tensor,
    table_ptr: tl.tensor,
    lens_ptr: tl.tensor,
    starts_ptr: tl.tensor,
    out_ptr: tl.tensor,
    scale_log2: tl.tensor,  # scale · log₂e: exp is computed as exp2
    q_token: tl.tensor,  # strides in elements, named for what they step over
    q_head: tl.tensor,
    k_page: tl.tensor,
    k_slot: tl.tensor,
    k_head: tl.tensor,
    v_page: tl.tensor,
    v_slot: tl.tensor,
    v_head: tl.tensor,
    table_row: tl.tensor,
    out_token: tl.tensor,
    out_head: tl.tensor,
    requests: tl.tensor,
    GROUP: tl.constexpr,  # noqa: N803 # Triton's constants are written in capitals
    HEADS: tl.constexpr,  # noqa: N803 # query heads in a tile: all or a divisor of the group's
    HEAD_DIM: tl.constexpr,  # noqa: N803 # the same
    PAGE: tl.constexpr,  # noqa: N803 # the same
    ROWS: tl.constexpr,  # noqa: N803 # the same
    KEYS: tl.constexpr,  # noqa: N803 # the same
) -> None:
    TOKENS: tl.constexpr = ROWS // HEADS  # noqa: N806 # the same
    program = tl.num_programs(0) - 1 - tl.program_id(0)  # the tiles that see most come first
    request = tl.full([], -1, tl.int32)  # the last whose first tile is not behind this program
    for other_0 in range(0, requests, 128):
        other = other_0 + tl.arange(0, 128)
        first = tl.load(starts_ptr + other, mask=other < requests, other=0).to(tl.int32) // TOKENS + other
        request += tl.reduce(((first <= program) & (other < requests)).to(tl.int32), 0, add)
    q_start = tl.load(starts_ptr + request).to(tl.int32)
    q_len = tl.load(starts_ptr + request + 1).to(tl.int32) - q_start
    token_0 = (program - (q_start // TOKENS + request)) * TOKENS
    if token_0 >= q_len:
        return
    seq_len = tl.load(lens_ptr + request).to(tl.int32)
    prefix = seq_len - q_len

    row = tl.arange(0, ROWS)
    token = token_0 + row // HEADS  # [ROWS]
    head = tl.program_id(1) * HEADS + row % HEADS
    inside = (token < q_len) & (row < TOKENS * HEADS)
    position = tl.minimum(prefix + token, seq_len - 1)
    dim = tl.arange(0, HEAD_DIM)
    where_q = (q_start + token).to(tl.int64)[:, None] * q_token + head[:, None] * q_head + dim[None, :]
    q = tl.load(q_ptr + where_q, mask=inside[:, None], other=0.0)  # [ROWS, HEAD_DIM]
    widen: tl.constexpr = _INTERPRETED and q_ptr.dtype.element_ty == tl.bfloat16  # its dot takes bf16's bits as numbers
    if widen:
        q = widened(q)

    kv_head = (tl.program_id(1) * HEADS // GROUP).to(tl.int64)
    k_ptr += kv_head * k_head
    v_ptr += kv_head * v_head
    table_ptr += request.to(tl.int64) * table_row
    seen_by_all = (prefix + token_0 + 1) // KEYS * KEYS
    seen_by_last = tl.minimum(prefix + token_0 + TOKENS, seq_len)
    largest = tl.full([ROWS], float("-inf"), tl.float32)  # of the logits so far, in units of log₂e
    total = tl.full([ROWS], 0.0, tl.float32)
    acc = tl.full([ROWS, HEAD_DIM], 0.0, tl.float32)
    for masked in tl.static_range(2):  # first the tiles that every row sees whole, then those on the diagonal
        begin = seen_by_all if masked else 0
        end = seen_by_last if masked else seen_by_all
        for key_0 in range(begin, end, KEYS):
            key = key_0 + tl.arange(0, KEYS)
            if masked:
                valid = key < seq_len  # what lies behind may be NaN, its page anything
                page = tl.load(table_ptr + key // PAGE, mask=valid, other=0).to(tl.int64)
                where_k = page * k_page + key % PAGE * k_slot
                where_v = page * v_page + key % PAGE * v_slot
                k = tl.load(k_ptr + where_k[:, None] + dim[None, :], mask=valid[:, None], other=0.0)
                v = tl.load(v_ptr + where_v[:, None] + dim[None, :], mask=valid[:, None], other=0.0)
            else:
                page = tl.load(table_ptr + key // PAGE).to(tl.int64)
                k = tl.load(k_ptr + (page * k_page + key % PAGE * k_slot)[:, None] + dim[None, :])
                v = tl.load(v_ptr + (page * v_page + key % PAGE * v_slot)[:, None] + dim[None, :])
            if widen:
                k, v = widened(k), widened(v)
            logits = tl.dot(q, tl.trans(k), input_precision="ieee")  # [ROWS, KEYS], without the scale
            if masked:
                logits = tl.where(key[None, :] <= position[:, None], logits, float("-inf"))
            new = tl.maximum(largest, tl.reduce(logits, 1, maximum) * scale_log2)
            p = tl.exp2(logits * scale_log2 - new[:, None])
            rescale = tl.exp2(largest - new)
            largest = new
            total = total * rescale + tl.reduce(p, 1, add)
            p = rounded(p, v_ptr.dtype.element_ty)
            if widen:
                p = widened(p)
            acc = acc * rescale[:, None] + tl.dot(p, v, input_precision="ieee")
    where_out = (q_start + token).to(tl.int64)[:, None] * out_token + head[:, None] * out_head + dim[None, :]
    tl.store(out_ptr + where_out, rounded(acc / total[:, None], out_ptr.dtype.element_ty), mask=inside[:, None])


def heads_in_tile(group: int, rows: int) -> int:
    """Return how many query heads of a group share a tile: all of them, or the largest divisor that fits."""
    return next(heads for heads in range(min(group, rows), 0, -1) if group % heads == 0)


def launch(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    block_table: torch.Tensor,
    seq_lens: torch.Tensor,
    q_starts: torch.Tensor,
    out: torch.Tensor,
    scale: float,
    config: Config,
) -> None:
    """Compute ``out``; shapes as in :func:`gaugeblock.kernels.extend_attention.extend_attention`, all checked."""
    tokens, q_heads, head_dim = q.shape
    _, page_size, kv_heads, _ = k_cache.shape
    rows, keys = config.tile(q.dtype)
    group = q_heads // kv_heads
    heads = heads_in_tile(group, rows)
    requests = len(seq_lens)
    tiles = tokens // (rows // heads) + requests  # request b starts at tile q_starts[b] // tokens a tile + b
    with quiet():
        _extend_attention_kernel[(tiles, q_heads // heads)](
            q,
            k_cache,
            v_cache,
            block_table,
            seq_lens,
            q_starts,
            out,
            scale * math.log2(math.e),
            q.stride(0),
            q.stride(1),
            *k_cache.stride()[:3],
            *v_cache.stride()[:3],
            block_table.stride(0),
            out.stride(0),
            out.stride(1),
            requests,
            GROUP=group,
            HEADS=heads,
            HEAD_DIM=head_dim,
            PAGE=page_size,
            ROWS=rows,
            KEYS=keys,
            num_warps=config.warps,
            num_stages=config.stages,
        )
