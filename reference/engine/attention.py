"""Attention over pages, and over one plain sequence. Softmax scale is 1 / sqrt(head_dim) everywhere."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 # the name that everybody knows
from torch import Tensor

from gaugeblock.reference.engine.batch import ChunkView, ForwardBatch
from gaugeblock.reference.kv.storage import KVStorage


def paged_attention(layer: int, q: Tensor, storage: KVStorage, batch: ForwardBatch) -> Tensor:
    """Attend from ``q`` [tokens, heads, head_dim] to each token's own pages; same shape back.

    All single tokens share one padded call. A chunk has a call of its own, so that it never pays for another's length.
    """
    parts = [_singles_attention(layer, q[: batch.singles], storage, batch)] if batch.singles else []
    parts += [_chunk_attention(layer, q[chunk.rows], storage, chunk) for chunk in batch.chunks]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _singles_attention(layer: int, q: Tensor, storage: KVStorage, batch: ForwardBatch) -> Tensor:
    k, v = storage.gather(layer, batch.tables)  # [singles, kv_heads, positions, head_dim]
    grouped = q.view(len(q), k.shape[1], -1, q.shape[-1])  # [singles, kv_heads, heads_per_kv_head, head_dim]
    out = F.scaled_dot_product_attention(grouped, k, v, attn_mask=batch.mask)
    return out.flatten(1, 2)


def _chunk_attention(layer: int, q: Tensor, storage: KVStorage, chunk: ChunkView) -> Tensor:
    k, v = storage.gather(layer, chunk.table)  # [1, kv_heads, positions, head_dim]
    out = F.scaled_dot_product_attention(q.transpose(0, 1)[None], k, v, attn_mask=chunk.mask, enable_gqa=True)
    return out[0].transpose(0, 1)


def causal_attention(q: Tensor, k: Tensor, v: Tensor, window: int | None = None) -> Tensor:
    """Attend within one whole sequence. ``q`` [tokens, heads, head_dim]; ``k``, ``v`` [tokens, kv_heads, head_dim].

    Each token sees the last ``window`` positions up to its own (None: all of them), as Mistral (arXiv 2310.06825) does.
    """
    heads_per_kv_head = q.shape[1] // k.shape[1]
    k, v = (t.repeat_interleave(heads_per_kv_head, dim=1) for t in (k, v))
    scores = torch.einsum("qhd,khd->hqk", q, k) * q.shape[-1] ** -0.5
    everything = torch.ones_like(scores[0], dtype=torch.bool)
    hidden = everything.triu(1)  # the future
    if window is not None:
        hidden |= everything.tril(-window)
    return torch.einsum("hqk,khd->qhd", scores.masked_fill(hidden, -torch.inf).softmax(-1), v)
