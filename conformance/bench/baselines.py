"""Named baselines: library calls that an op is held against though they are not the op, or not in its layout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 # the name that every PyTorch user knows
from torch.nn.attention.bias import causal_lower_right

from gaugeblock.conformance.bench.implementations import Implementation
from gaugeblock.conformance.bench.timing import Call
from gaugeblock.kernels.contract import Case, Op

CUBLAS = "bare cuBLAS"
INT_MM = "_int_mm + epilogue"
SDPA = "SDPA contiguous"
COPY = "copy, same bytes"
COPIED = ("add_rmsnorm", "silu_and_mul", "gelu_and_mul", "softmax", "rope")
"""The ops that read about as much as they write, and do little else."""


@dataclass(frozen=True)
class SameBytes(Implementation):
    """PyTorch's copy of half the bytes that an op moves, which reads and writes as much as the op does.

    What it lacks to R = 1 is what the start and the end of one call cost at this size: R is held to a copy of 1 GiB.
    """

    op: Op = field(kw_only=True)

    def timed(self, case: Case) -> Call:
        """Return the copy between two buffers of its own."""
        device = next(iter(case.inputs.values())).device
        size = self.op.bytes_moved(case) // 2
        source, to = (torch.zeros(size, dtype=torch.uint8, device=device) for _ in range(2))
        return lambda: to.copy_(source)


def _cublas(x: torch.Tensor, ln_weight: Any, ln_bias: Any, weight: torch.Tensor, *rest: Any, **params: Any) -> Call:
    """Prepare the matrix product alone, without bias: what the op would cost if all else were free."""
    return lambda: F.linear(x, weight)


def _dequantised(acc: torch.Tensor, x_scale: torch.Tensor, w_scale: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return (acc.float() * x_scale * w_scale + bias.float()).to(bias.dtype)


def _int_mm(
    x: torch.Tensor, x_scale: torch.Tensor, weight: torch.Tensor, w_scale: torch.Tensor, bias: torch.Tensor, **_: Any
) -> Call:
    """Prepare PyTorch's integer product with a compiled dequantisation behind it; the product needs 17 rows."""
    epilogue = torch.compile(_dequantised, dynamic=False)
    rows = x.shape[0]
    padded = F.pad(x, (0, 0, 0, max(32 - rows, 0)))
    return lambda: epilogue(torch._int_mm(padded, weight.t())[:rows], x_scale, w_scale, bias)


def _decode_sdpa(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    block_table: torch.Tensor,
    seq_lens: torch.Tensor,
    scale: float,
) -> Call:
    """Prepare SDPA on the same context laid out contiguously, as if there were no pages; all contexts of one length."""
    keys, values = (_contiguous(cache, block_table, seq_lens) for cache in (k_cache, v_cache))
    query = q[:, :, None, :]  # [requests, heads, 1, head_dim]
    return lambda: F.scaled_dot_product_attention(query, keys, values, scale=scale, enable_gqa=True)


def _extend_sdpa(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    block_table: torch.Tensor,
    seq_lens: torch.Tensor,
    q_starts: torch.Tensor,
    scale: float,
) -> Call:
    """Prepare causal SDPA of one request on its context laid out contiguously, key heads repeated for the query's."""
    group = q.shape[1] // k_cache.shape[2]
    keys, values = (
        _contiguous(cache, block_table, seq_lens).repeat_interleave(group, dim=1) for cache in (k_cache, v_cache)
    )
    query = q.transpose(0, 1)[None].contiguous()  # [1, heads, tokens, head_dim]
    mask = causal_lower_right(query.shape[2], keys.shape[2])
    return lambda: F.scaled_dot_product_attention(query, keys, values, mask, scale=scale)


def _contiguous(cache: torch.Tensor, block_table: torch.Tensor, seq_lens: torch.Tensor) -> torch.Tensor:
    """Return ``[requests, kv_heads, tokens, head_dim]`` of a cache ``[pages, page, kv_heads, head_dim]``."""
    length = int(seq_lens.max())
    gathered = cache[block_table.long()].flatten(1, 2)[:, :length]  # [requests, tokens, kv_heads, head_dim]
    return gathered.transpose(1, 2).contiguous()


_PREPARED: dict[str, tuple[str, Callable[..., Call]]] = {
    "ln_linear": (CUBLAS, _cublas),
    "int8_linear": (INT_MM, _int_mm),
    "decode_attention": (SDPA, _decode_sdpa),
    "extend_attention": (SDPA, _extend_sdpa),
}


def baselines(op: Op) -> list[Implementation]:
    """Return the baselines of an op."""
    if op.name in COPIED:
        return [SameBytes(COPY, "baseline", op.eager, judged=False, op=op)]
    if op.name not in _PREPARED:
        return []
    name, prepare = _PREPARED[op.name]
    return [Implementation(name, "baseline", op.eager, prepare, judged=False)]
