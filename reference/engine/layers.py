"""The operators of a Llama decoder, each a module of its own: what a profiler measures and a placement moves.

All computing happens inside an operator, so every value has one producer and every edge of the model is a call's
argument. The residual is added where it is next needed, in the norm, as fused add-and-norm kernels do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, Self, cast

import torch
import torch.nn.functional as F  # noqa: N812 # the name that everybody knows
from torch import Tensor, nn

from gaugeblock.reference.engine.config import ModelConfig

Move = Callable[[Tensor], Tensor]  # returns the tensor where it is needed


class Step(Protocol):
    """What attention needs of a step besides activations."""

    @property
    def cos(self) -> Tensor:
        """Cosines of the tokens' rotations, [tokens, 1, head_dim / 2]."""

    @property
    def sin(self) -> Tensor:
        """Sines, likewise."""

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the attention of rotated q, k and v [tokens, heads, head_dim], as [tokens, heads, head_dim]."""

    def to(self, move: Move) -> Self:
        """Return the same step with its tensors moved."""


class Weighted(nn.Module):
    """An operator with one weight: a tensor, or what stands in for one in ``torch.nn.functional.linear``."""

    weight: Tensor

    def hold(self, weight: object) -> None:
        """Compute with ``weight`` from now on. A tensor becomes a buffer, so that a module's bytes can be counted."""
        if hasattr(self, "weight"):
            del self.weight
        if isinstance(weight, Tensor):
            self.register_buffer("weight", weight, persistent=False)
        else:
            self.weight = cast("Tensor", weight)


class Embedding(Weighted):
    """``weight`` [vocab, hidden]."""

    def forward(self, input_ids: Tensor) -> Tensor:
        """Return the rows of ``input_ids`` [tokens] as [tokens, hidden]."""
        return F.embedding(input_ids, self.weight)


class Linear(Weighted):
    """``weight`` [out, in]."""

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` [tokens, in] times the transposed weight, [tokens, out]."""
        return F.linear(x, self.weight)


class RMSNorm(Weighted):
    """Residual addition and RMS norm. ``weight`` [hidden]."""

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: Tensor, residual: Tensor | None = None, rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Add ``x`` to the residual, both [tokens, hidden]; return the sum's norm, and the sum: the next residual.

        With ``rows`` [wanted] only those of the tokens are computed and returned, in that order.
        """
        if rows is not None:
            x, residual = x[rows], None if residual is None else residual[rows]
        total = x if residual is None else residual + x
        return F.rms_norm(total, (total.shape[-1],), self.weight, self.eps), total


class Attention(nn.Module):
    """Rotary embedding, KV write and attention of one layer. Without weights: the KV belongs to the step."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.head_dim = config.head_dim
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads

    def forward(self, qkv: Tensor, step: Step) -> Tensor:
        """Return [tokens, heads * head_dim] of ``qkv`` [tokens, (heads + 2 * kv_heads) * head_dim]."""
        qkv = qkv.view(len(qkv), -1, self.head_dim)
        rotated = rotate(qkv[:, : -self.kv_heads], step.cos, step.sin)
        q, k = rotated[:, : self.heads], rotated[:, self.heads :]
        return step.attend(self.layer, q, k, qkv[:, -self.kv_heads :]).flatten(1)


class SiluAndMul(nn.Module):
    """The gated activation of the MLP."""

    def forward(self, gate_up: Tensor) -> Tensor:
        """Return [tokens, intermediate] of ``gate_up`` [tokens, 2 * intermediate], the gate first."""
        gate, up = gate_up.chunk(2, dim=-1)
        return F.silu(gate) * up


def rope_tables(positions: int, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """Return cos and sin [positions, head_dim / 2] of rotary embedding (RoFormer, arXiv 2104.09864)."""
    frequencies = 1.0 / theta ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    angles = torch.outer(torch.arange(positions, dtype=torch.float32), frequencies)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate ``x`` [tokens, heads, head_dim]; dimension i pairs with i + head_dim / 2, as in Hugging Face's Llama."""
    low, high = x.chunk(2, dim=-1)
    return torch.cat((low * cos - high * sin, high * cos + low * sin), dim=-1)
