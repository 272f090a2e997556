"""Inputs of extend attention: ragged batches over caches whose unused pages and slots hold NaN."""

from __future__ import annotations

import math

import torch

from gaugeblock.kernels.cases import fill, normal
from gaugeblock.kernels.contract import Case

CHUNK = 29  # new tokens of the request with the long context
SHORT = 27  # keys of a request without a prefix


def lengths(requests: int, size: int, chunk: int = CHUNK) -> tuple[list[int], list[int]]:
    """Return the KV length and the number of new tokens of each request.

    In turn: a chunk of ``chunk`` tokens, or as many as there are, on a prefix (the first request's context is
    ``size``, later ones' at most 120), no prefix, one new token, none, and a few on a prefix of odd length. From the
    ninth on every sixth has new tokens.
    """
    kv, new = [], []
    for request in range(requests):
        longest = size if request == 0 else min(size, 120 - request % 7)
        short = min(size, SHORT + request % 5)
        choices = (
            (longest, min(longest, chunk)),
            (short, short),
            (longest, 1),
            (min(size, 20), 0),
            (min(size, 77 + request), min(size, 5 + request % 9)),
        )
        seq_len, q_len = choices[request % 5]
        q_len = q_len if request < 8 or request % 6 == 0 else 0
        kv.append(seq_len)
        new.append(q_len)
    return kv, new


def make(
    rows: int,
    size: int,
    dtype: torch.dtype,
    seed: int = 0,
    kind: str = "normal",
    *,
    heads: int = 4,
    kv_heads: int = 2,
    head_dim: int = 64,
    page_size: int = 16,
    chunk: int = CHUNK,
) -> Case:
    """Return ``rows`` requests with contexts up to ``size``, as :func:`lengths` says.

    Kinds of :func:`gaugeblock.kernels.cases.fill` apply to V (``scaled``: one power of two a request), ``large`` to the
    logits (±60 … ±130); ``zeros`` to all. Of this op: ``rising``, logits that grow with the position, so that every
    tile of keys has a new maximum; ``peaked``, logits of deviation 12, next to one-hot.
    """
    kv, new = lengths(rows, size, chunk)
    tokens, slots = sum(new), sum(kv)
    q = 1.5 * normal(tokens, heads * head_dim, 3 * seed).view(tokens, heads, head_dim)
    k = normal(slots, kv_heads * head_dim, 3 * seed + 1).view(slots, kv_heads, head_dim)
    if kind == "zeros":
        q, k = torch.zeros_like(q), torch.zeros_like(k)
    elif kind == "peaked":
        q = 8 * q
    elif kind in ("large", "rising"):
        low, high = (60.0, 130.0) if kind == "large" else (0.0, 40.0)
        ramps = [torch.linspace(low, high, n, dtype=torch.float64) for n in kv]
        wave = torch.ones(head_dim, dtype=torch.float64)
        wave[1::2] = -1
        sign = 1 - 2 * (torch.arange(tokens) % 2) if kind == "large" else torch.ones(tokens)
        q = 0.05 * q + wave * sign[:, None, None]
        k = 0.05 * k + wave / math.sqrt(head_dim) * torch.cat([*ramps, k.new_empty(0)])[:, None, None]
    q, k = q.to(dtype), k.to(dtype)
    v = _values(kind, kv, kv_heads * head_dim, dtype, 3 * seed + 2).view(slots, kv_heads, head_dim)
    k_cache, v_cache, table = paged(k, v, kv, page_size, seed)
    inputs = {
        "q": q,
        "k_cache": k_cache,
        "v_cache": v_cache,
        "block_table": table,
        "seq_lens": torch.tensor(kv, dtype=torch.int32),
        "q_starts": starts(new),
    }
    shape = f"{rows} requests of at most {size} keys, {heads}/{kv_heads} heads × {head_dim}, page {page_size}"
    return Case(f"extend_attention {shape} {dtype} {kind} seed {seed}", dtype, inputs, {"scale": head_dim**-0.5})


def starts(new: list[int]) -> torch.Tensor:
    """Return the cumulative starts ``[requests + 1]`` of ragged lengths."""
    return torch.tensor([0, *new], dtype=torch.int32).cumsum(0, dtype=torch.int32)


def paged(
    k: torch.Tensor, v: torch.Tensor, kv: list[int], page_size: int, seed: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Lay ragged K and V ``[slots, heads, dim]`` into shuffled pages; return both caches and the block table.

    What no request uses is NaN: two whole pages, and the slots behind each request's end. Table entries behind a
    request's pages name one of those pages.
    """
    counts = [-(-n // page_size) for n in kv]
    used = sum(counts)
    order = torch.randperm(used + 2, generator=torch.Generator().manual_seed(seed)).to(torch.int32)
    table = torch.full((len(kv), max(counts, default=0) + 1), int(order[used]), dtype=torch.int32)
    caches = [x.new_full(((used + 2), page_size, *x.shape[1:]), math.nan) for x in (k, v)]
    page = slot = 0
    for request, (count, length) in enumerate(zip(counts, kv, strict=True)):
        pages = order[page : page + count]
        table[request, :count] = pages
        at = torch.arange(length)
        for cache, x in zip(caches, (k, v), strict=True):
            cache[pages[at // page_size].long(), at % page_size] = x[slot : slot + length]
        page, slot = page + count, slot + length
    return caches[0], caches[1], table


def _values(kind: str, kv: list[int], columns: int, dtype: torch.dtype, seed: int) -> torch.Tensor:
    if kind == "scaled":
        values = normal(sum(kv), columns, seed)
        limit = 7 if dtype == torch.float16 else 20
        scale = torch.linspace(-limit, limit, max(len(kv), 1), dtype=torch.float64)[: len(kv)].round().exp2()
        return (values * scale.repeat_interleave(torch.tensor(kv, dtype=torch.int64))[:, None]).to(dtype)
    return fill(kind if kind in ("small", "offset", "denormal", "zeros") else "normal", sum(kv), columns, dtype, seed)


def workload(
    device: str,
    dtype: torch.dtype,
    *,
    tokens: int,
    prefix: int,
    requests: int = 1,
    heads: int = 32,
    kv_heads: int = 8,
    head_dim: int = 128,
    page_size: int = 16,
) -> Case:
    """Return ``requests`` chunks of ``tokens`` new tokens on prefixes of ``prefix``, in shuffled pages, for timing."""
    length = prefix + tokens
    pages = -(-length // page_size)
    cache = (requests * pages, page_size, kv_heads, head_dim)
    inputs = {
        "q": torch.randn(requests * tokens, heads, head_dim, dtype=dtype, device=device),
        "k_cache": torch.randn(cache, dtype=dtype, device=device),
        "v_cache": torch.randn(cache, dtype=dtype, device=device),
        "block_table": torch.randperm(requests * pages, device=device).to(torch.int32).view(requests, pages),
        "seq_lens": torch.full((requests,), length, dtype=torch.int32, device=device),
        "q_starts": starts([tokens] * requests).to(device),
    }
    label = f"extend_attention {requests} × {tokens} on {prefix}, {heads}/{kv_heads} × {head_dim}, page {page_size}"
    return Case(label, dtype, inputs, {"scale": head_dim**-0.5})
