"""The Llama forward pass in fp32: over a ragged batch with paged KV, and over one plain sequence as an oracle.

A tree of modules whose leaves are the operators, named as in Hugging Face's checkpoints where there is one of that name
(``model.layers.0.self_attn.qkv_proj``); what a name means and which feeds which: ``reference.hybrid.operators``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from gaugeblock.reference.engine import layers as operators
from gaugeblock.reference.engine.attention import causal_attention, paged_attention
from gaugeblock.reference.engine.batch import ForwardBatch
from gaugeblock.reference.engine.config import ModelConfig
from gaugeblock.reference.engine.loader import LayerWeights, Weights
from gaugeblock.reference.kv.storage import KVShape, KVStorage


class LlamaModel(nn.Module):
    """A Llama or Mistral decoder. Stateless: the KV lives in the storage that is passed in."""

    def __init__(self, config: ModelConfig, weights: Weights) -> None:
        super().__init__()
        self.config = config
        self.cos, self.sin = operators.rope_tables(config.max_position_embeddings, config.head_dim, config.rope_theta)
        self.model = Decoder(config)
        self.lm_head = operators.Linear()
        self.load(weights)

    def load(self, weights: Weights) -> None:
        """Compute with ``weights`` from now on. KV of earlier ones is not theirs: their pages have other keys."""
        self.model.load(weights)
        self.lm_head.hold(weights.head)

    def new_storage(self, shape: KVShape, num_pages: int) -> KVStorage:
        """Lay out KV pages where the layers' attention runs."""
        return KVStorage(shape, num_pages)

    def close(self) -> None:
        """Let go of what lies on other devices than the host: nothing, unless a placement says so."""

    @torch.inference_mode()
    def forward(self, batch: ForwardBatch, storage: KVStorage) -> Tensor:
        """Compute a batch and store its KV; return the hidden states [logit rows, hidden] after the last norm."""
        return self._decode(
            batch.input_ids, PagedStep(*self._rotation(batch.positions), batch, storage), batch.logit_rows
        )

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        """Return logits [rows, vocab] of hidden states [rows, hidden]."""
        return self._home(self.lm_head(hidden))

    @torch.inference_mode()
    def forward_full(self, input_ids: Tensor) -> Tensor:
        """Return the logits [tokens, vocab] of one sequence [tokens], without any cache: the oracle for the rest."""
        return self.logits(self._decode(input_ids, self._plain_step(input_ids)))

    @torch.inference_mode()
    def kv_full(self, input_ids: Tensor) -> Tensor:
        """Return the KV [2, layers, tokens, kv_heads, head_dim] of that pass over [tokens], K first."""
        step = self._plain_step(input_ids)
        self._decode(input_ids, step)
        return torch.stack([self._home(kv) for kv in step.kv], dim=1)

    def _decode(self, input_ids: Tensor, step: operators.Step, rows: Tensor | None = None) -> Tensor:
        hidden: Tensor = self.model(input_ids, step, rows)
        return hidden

    def _home(self, tensor: Tensor) -> Tensor:
        """Return an operator's result where the host can read it."""
        return tensor

    def _plain_step(self, input_ids: Tensor) -> PlainStep:
        return PlainStep(*self._rotation(torch.arange(len(input_ids))), self.config.sliding_window)

    def _rotation(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        return self.cos[positions, None], self.sin[positions, None]  # [tokens, 1, head_dim / 2]


class Decoder(nn.Module):
    """Embedding, layers and last norm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embed_tokens = operators.Embedding()
        layers = [DecoderLayer(config, layer) for layer in range(config.num_hidden_layers)]
        self.layers = nn.ModuleList(layers)
        self.norm = operators.RMSNorm(config.rms_norm_eps)
        # A flat list: looking up submodules, and calling some that only call others, cost 3% of a small model's decode.
        self._runs = [layer.operators for layer in layers]

    def load(self, weights: Weights) -> None:
        """Take a model's weights."""
        self.embed_tokens.hold(weights.embed)
        own: Iterable[DecoderLayer] = self.layers  # type: ignore[assignment] # a ModuleList does not know its type
        for layer, its in zip(own, weights.layers, strict=True):
            layer.load(its)
        self.norm.hold(weights.norm)

    def forward(self, input_ids: Tensor, step: operators.Step, rows: Tensor | None) -> Tensor:
        """Return hidden states [tokens, hidden] of ``input_ids`` [tokens], or those of ``rows`` alone."""
        x, residual = self.embed_tokens(input_ids), None
        for input_norm, qkv, attention, out, post_norm, gate_up, activation, down in self._runs:
            x, residual = input_norm(x, residual)
            x, residual = post_norm(out(attention(qkv(x), step)), residual)
            x = down(activation(gate_up(x)))
        hidden: Tensor = self.norm(x, residual, rows)[0]
        return hidden


class DecoderLayer(nn.Module):
    """One layer, for its names and weights: attention and MLP, each behind a norm that adds the residual."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.input_layernorm = operators.RMSNorm(config.rms_norm_eps)
        self.self_attn = SelfAttention(config, layer)
        self.post_attention_layernorm = operators.RMSNorm(config.rms_norm_eps)
        self.mlp = MLP()

    @property
    def operators(self) -> tuple[nn.Module, ...]:
        """The operators in the order in which they run."""
        attention = (self.self_attn.qkv_proj, self.self_attn.attention, self.self_attn.o_proj)
        mlp = (self.mlp.gate_up_proj, self.mlp.act_fn, self.mlp.down_proj)
        return (self.input_layernorm, *attention, self.post_attention_layernorm, *mlp)

    def load(self, weights: LayerWeights) -> None:
        """Take a layer's weights."""
        self.input_layernorm.hold(weights.input_norm)
        self.self_attn.qkv_proj.hold(weights.qkv)
        self.self_attn.o_proj.hold(weights.out)
        self.post_attention_layernorm.hold(weights.post_norm)
        self.mlp.gate_up_proj.hold(weights.gate_up)
        self.mlp.down_proj.hold(weights.down)


class SelfAttention(nn.Module):
    """The names of attention and its two projections."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.qkv_proj = operators.Linear()
        self.attention = operators.Attention(config, layer)
        self.o_proj = operators.Linear()


class MLP(nn.Module):
    """The names of the gated MLP's operators."""

    def __init__(self) -> None:
        super().__init__()
        self.gate_up_proj = operators.Linear()
        self.act_fn = operators.SiluAndMul()
        self.down_proj = operators.Linear()


@dataclass(frozen=True)
class PagedStep:
    """A batch whose KV is in pages."""

    cos: Tensor  # [tokens, 1, head_dim / 2]
    sin: Tensor
    batch: ForwardBatch
    storage: KVStorage

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Write the tokens' KV, then attend to all that each token sees."""
        self.storage.write(layer, self.batch.slots, k, v)
        return paged_attention(layer, q, self.storage, self.batch)

    def to(self, move: operators.Move) -> PagedStep:
        """Return the step with what attention reads moved."""
        return replace(self, cos=move(self.cos), sin=move(self.sin), batch=self.batch.to(move))


@dataclass(frozen=True)
class PlainStep:
    """One whole sequence without a cache. ``kv`` gathers [2, tokens, kv_heads, head_dim] of each layer."""

    cos: Tensor  # [tokens, 1, head_dim / 2]
    sin: Tensor
    window: int | None
    kv: list[Tensor] = field(default_factory=list)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend within the sequence; layers come in their order."""
        self.kv.append(torch.stack((k, v)))
        return causal_attention(q, k, v, self.window)

    def to(self, move: operators.Move) -> PlainStep:
        """Return the step with its tables moved; it gathers into the same list."""
        return replace(self, cos=move(self.cos), sin=move(self.sin))
