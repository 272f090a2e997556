"""Attention to one segment of the keys, and the merging of segments into attention to all of them.

With ``lse`` the logarithm of the sum of a segment's exponentiated scores, two segments merge into

    out = out_1 * exp(lse_1 - lse) + out_2 * exp(lse_2 - lse),    lse = log(exp(lse_1) + exp(lse_2))

which is softmax over both, exactly (Rabe and Staats, https://arxiv.org/abs/2112.05682), and so do many.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 # the name that everybody knows
from torch import Tensor

AT_ONCE = 16  # segments whose outputs lie beside each other until they are merged
FLASH_DTYPES = (torch.float16, torch.bfloat16)


def attend(q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> tuple[Tensor, Tensor]:
    """Attend to one segment; return the output like ``q`` and the log-sum-exp [1, heads, tokens] in fp32.

    ``q`` [1, heads, tokens, head_dim]; ``k``, ``v`` [1, kv_heads, length, head_dim], of any strides but the last one's.
    ``causal``: the last query sees the whole segment, each one before it one key less.
    """
    if q.device.type == "cpu" and (not causal or q.shape[2] == k.shape[2]):
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, causal, scale=scale)
        return out, lse
    if takes_lower_right(q):
        found = torch.ops.aten._scaled_dot_product_flash_attention(q, k, v, 0.0, causal, False, scale=scale)
        return found[0], found[1]
    return _plain(q, k, v, causal, scale)


def takes_lower_right(q: Tensor) -> bool:
    """Whether one call can be causal over more keys than queries: FlashAttention aligns the mask with the last key."""
    head_dim = q.shape[-1]
    return q.is_cuda and q.dtype in FLASH_DTYPES and head_dim % 8 == 0 and head_dim <= 256


def _plain(q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float) -> tuple[Tensor, Tensor]:
    """The same in two products, for what has no kernel with a log-sum-exp."""
    heads = q.shape[1] // k.shape[1]
    k, v = (t.repeat_interleave(heads, dim=1) for t in (k, v))
    scores = (q @ k.transpose(-1, -2)).float() * scale  # [1, heads, tokens, length]
    if causal:
        seen = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).tril(k.shape[2] - q.shape[2])
        scores = scores.masked_fill(~seen, -torch.inf)
    lse = scores.logsumexp(-1)
    return (scores - lse[..., None]).exp().to(v.dtype) @ v, lse


def attend_within(q: Tensor, k: Tensor, v: Tensor, seen: Tensor, scale: float) -> Tensor:
    """Attend to the keys that ``seen`` [tokens, length] allows; output like ``q``."""
    heads = q.shape[1] // k.shape[1]
    if heads > 1 and q.is_cuda:  # with a mask no CUDA kernel shares the keys of a group
        k, v = (t.repeat_interleave(heads, dim=1) for t in (k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=scale, enable_gqa=k.shape[1] != q.shape[1])


class Merged:
    """The attention to all segments that were added so far. One alone stays as it is; more are summed in fp32.

    They are merged many at a time: on a GPU a merge costs more in launches than in bytes.
    """

    def __init__(self) -> None:
        self._parts: list[tuple[Tensor, Tensor]] = []

    def add(self, out: Tensor, lse: Tensor) -> None:
        """Take in a segment that :func:`attend` returned."""
        self._parts.append((out, lse))
        if len(self._parts) == AT_ONCE:
            self._parts = [self._merge()]

    def result(self) -> Tensor:
        """The attention to all of them."""
        return self._parts[0][0] if len(self._parts) == 1 else self._weighted(self._lses())

    def _merge(self) -> tuple[Tensor, Tensor]:
        lses = self._lses()
        return self._weighted(lses), lses.logsumexp(0)

    def _lses(self) -> Tensor:
        return torch.stack([lse for _, lse in self._parts])  # [segments, 1, heads, tokens]

    def _weighted(self, lses: Tensor) -> Tensor:
        """The outputs' sum; their weights exp(lse_i - lse) are a softmax over the segments, which is one kernel."""
        same = len({out.dtype for out, _ in self._parts}) == 1
        outs = torch.stack([out if same else out.to(lses.dtype) for out, _ in self._parts])
        return (outs * lses.softmax(0)[..., None]).sum(0)
