"""Extend attention on Hopper: page loads, two consumers and the tensor cores run side by side.

The tiles are those of :mod:`gaugeblock.kernels._extend_attention_triton`; what differs is who does the work. Triton's
pipeline computes an address for every 16 bytes of K and V in the threads that also multiply. Here one warp does nothing
but name boxes to the tensor memory accelerator, a page and 64 columns each, which lands them in shared memory where a
tile of K or V expects them; consumers of four warps each hold 64 query rows, and while one is at its exponentials the
other multiplies (Shah et al. 2024, arXiv:2407.08608). Inside a consumer, too, Q·Kᵀ of the next tile and P·V of this one
are in flight together.

Full and empty barriers hand each stage of K and V back and forth. Pages behind a request's end are never read: the last
page is loaded again in their place, and rows of V behind the end are zeroed in shared memory before they meet P.

It is written in Gluon, which Triton calls experimental; where Gluon, the card or the layout of the cache does not fit
(:func:`fits`), the Triton kernel takes over, which computes the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from gaugeblock.kernels._extend_attention_triton import heads_in_tile
from gaugeblock.kernels.runtime import runs_on_hopper

COLUMNS = 64  # of a box: 128 bytes, the widest swizzle
ROWS = 128  # query rows of a tile


@dataclass(frozen=True)
class HopperConfig:
    """Keys of a tile, and stages of K and V in shared memory; two consumers hold 64 query rows each."""

    keys: int
    stages: int


def fits(q: torch.Tensor, k_cache: torch.Tensor, v_cache: torch.Tensor) -> bool:
    """Whether the kernel takes these tensors: fp16 or bf16 on Hopper, and caches that are rows of one matrix.

    Pages hold a power of two of at least 8 slots, one behind the other, 16-byte aligned. Nothing else matters, in
    particular not the batch: a request's bits do not depend on it.
    """
    page_size = k_cache.shape[1]
    return (
        q.element_size() == 2
        and page_size >= 8
        and page_size & (page_size - 1) == 0
        and all(_is_matrix(cache) for cache in (k_cache, v_cache))
        and runs_on_hopper("gaugeblock.kernels._extend_attention_gluon", q.device.index or 0)
    )


def _is_matrix(cache: torch.Tensor) -> bool:
    pages, page_size, kv_heads, head_dim = cache.shape
    page, slot, head, _ = cache.stride()
    merged = pages == 1 or page == page_size * slot
    within = slot >= (kv_heads - 1) * head + head_dim and pages * page_size < 2**31
    return merged and within and slot % 8 == 0 and cache.data_ptr() % 16 == 0


def launch(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    block_table: torch.Tensor,
    seq_lens: torch.Tensor,
    q_starts: torch.Tensor,
    out: torch.Tensor,
    scale: float,
    config: HopperConfig,
) -> None:
    """Compute ``out``; shapes as in :func:`gaugeblock.kernels.extend_attention.extend_attention`, all checked."""
    from gaugeblock.kernels import _extend_attention_gluon as kernel

    tokens, q_heads, head_dim = q.shape
    page_size, kv_heads = k_cache.shape[1:3]
    group = q_heads // kv_heads
    heads = heads_in_tile(group, ROWS)
    box = min(page_size, config.keys)
    tiles = tokens // (ROWS // heads) + len(seq_lens)  # request b starts at tile q_starts[b] // tokens a tile + b
    kernel._extend_attention_hopper_kernel[(tiles, q_heads // heads)](
        q,
        kernel.boxes(k_cache, box, COLUMNS),
        kernel.boxes(v_cache, box, COLUMNS),
        block_table,
        seq_lens,
        q_starts,
        out,
        scale * math.log2(math.e),
        q.stride(0),
        q.stride(1),
        k_cache.stride(2),
        v_cache.stride(2),
        block_table.stride(0),
        out.stride(0),
        out.stride(1),
        len(seq_lens),
        GROUP=group,
        HEADS=heads,
        HEAD_DIM=head_dim,
        PAGE=page_size,
        KEYS=config.keys,
        STAGES=config.stages,
        BOX=box,
        num_warps=4,
    )
