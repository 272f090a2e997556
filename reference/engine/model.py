"""The Llama forward pass in fp32: over a ragged batch with paged KV, and over one plain sequence as an oracle."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812 # the name that everybody knows
from torch import Tensor

from gaugeblock.reference.engine.attention import causal_attention, paged_attention
from gaugeblock.reference.engine.batch import ForwardBatch
from gaugeblock.reference.engine.config import ModelConfig
from gaugeblock.reference.engine.loader import LayerWeights, Weights
from gaugeblock.reference.kv.storage import KVStorage

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]  # (layer, q, k, v) -> [tokens, heads, head_dim]


class LlamaModel:
    """A Llama or Mistral decoder. Stateless: the KV lives in the storage that is passed in."""

    def __init__(self, config: ModelConfig, weights: Weights) -> None:
        self.config = config
        self.weights = weights
        self.cos, self.sin = rope_tables(config.max_position_embeddings, config.head_dim, config.rope_theta)

    @torch.inference_mode()
    def forward(self, batch: ForwardBatch, storage: KVStorage) -> Tensor:
        """Compute a batch, store its KV, and return final hidden states [tokens, hidden] after the last norm."""

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            storage.write(layer, batch.slots, k, v)
            return paged_attention(layer, q, storage, batch)

        return self._decode(batch.input_ids, batch.positions, attend)

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        """Return logits [rows, vocab] of hidden states [rows, hidden]."""
        return F.linear(hidden, self.weights.head)

    @torch.inference_mode()
    def forward_full(self, input_ids: Tensor) -> Tensor:
        """Return the logits [tokens, vocab] of one sequence [tokens], without any cache: the oracle for the rest."""

        return self.logits(self._decode_plain(input_ids)[0])

    @torch.inference_mode()
    def kv_full(self, input_ids: Tensor) -> Tensor:
        """Return the KV [2, layers, tokens, kv_heads, head_dim] of that pass over [tokens], K first."""
        return torch.stack(self._decode_plain(input_ids)[1], dim=1)

    def _decode_plain(self, input_ids: Tensor) -> tuple[Tensor, list[Tensor]]:
        kv: list[Tensor] = []  # [2, tokens, kv_heads, head_dim] of each layer

        def attend(_layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            kv.append(torch.stack((k, v)))
            return causal_attention(q, k, v, self.config.sliding_window)

        return self._decode(input_ids, torch.arange(input_ids.shape[0]), attend), kv

    def _decode(self, input_ids: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        x = F.embedding(input_ids, self.weights.embed)  # [tokens, hidden]
        cos, sin = self.cos[positions, None], self.sin[positions, None]  # [tokens, 1, head_dim / 2]
        for index, layer in enumerate(self.weights.layers):
            q, k, v = self._qkv(layer, self._norm(x, layer.input_norm), cos, sin)
            x = x + F.linear(attend(index, q, k, v).flatten(1), layer.out)
            x = x + self._mlp(layer, self._norm(x, layer.post_norm))
        return self._norm(x, self.weights.norm)

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), weight, self.config.rms_norm_eps)

    def _qkv(self, layer: LayerWeights, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        c = self.config
        qkv = F.linear(x, layer.qkv).view(len(x), -1, c.head_dim)  # [tokens, heads + 2 * kv_heads, head_dim]
        rotated = rotate(qkv[:, : -c.num_key_value_heads], cos, sin)
        q, k = rotated[:, : c.num_attention_heads], rotated[:, c.num_attention_heads :]
        return q, k, qkv[:, -c.num_key_value_heads :]

    def _mlp(self, layer: LayerWeights, x: Tensor) -> Tensor:
        gate, up = F.linear(x, layer.gate_up).chunk(2, dim=-1)
        return F.linear(F.silu(gate) * up, layer.down)


def rope_tables(positions: int, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """Return cos and sin [positions, head_dim / 2] of rotary embedding (RoFormer, arXiv 2104.09864)."""
    frequencies = 1.0 / theta ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    angles = torch.outer(torch.arange(positions, dtype=torch.float32), frequencies)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate ``x`` [tokens, heads, head_dim]; dimension i pairs with i + head_dim / 2, as in Hugging Face's Llama."""
    low, high = x.chunk(2, dim=-1)
    return torch.cat((low * cos - high * sin, high * cos + low * sin), dim=-1)
