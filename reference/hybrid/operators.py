"""The operators of the reference engine's model by name, and the values that flow between them.

| operator | takes | gives |
|---|---|---|
| ``model.embed_tokens`` | token ids from the host | the first hidden states |
| ``model.layers.N.input_layernorm`` | what the layer before adds, and the residual | their sum (the residual), normed |
| ``model.layers.N.self_attn.qkv_proj`` | normed | q, k and v |
| ``model.layers.N.self_attn.attention`` | q, k, v; from the host: rotations, page tables | attended; holds the KV |
| ``model.layers.N.self_attn.o_proj`` | attended | what attention adds |
| ``model.layers.N.post_attention_layernorm`` | that, and the residual | their sum, normed |
| ``model.layers.N.mlp.gate_up_proj`` | normed | gate and up |
| ``model.layers.N.mlp.act_fn`` | gate and up | activated |
| ``model.layers.N.mlp.down_proj`` | activated | what the MLP adds |
| ``model.norm`` | that, and the residual, at the rows whose logits are wanted | normed |
| ``lm_head`` | normed | logits, which the host samples from |

The residual is added in a norm, so it lives where the norms run and moves from norm to norm.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from torch import nn

from gaugeblock.reference.engine.config import ModelConfig

EMBED, NORM, HEAD = "model.embed_tokens", "model.norm", "lm_head"
INPUT_NORM, QKV, ATTENTION, OUT = "input_layernorm", "self_attn.qkv_proj", "self_attn.attention", "self_attn.o_proj"
POST_NORM, GATE_UP, ACTIVATION, DOWN = "post_attention_layernorm", "mlp.gate_up_proj", "mlp.act_fn", "mlp.down_proj"
OF_LAYER = (INPUT_NORM, QKV, ATTENTION, OUT, POST_NORM, GATE_UP, ACTIVATION, DOWN)
"""The operators of a layer in the order in which they run."""


@dataclass(frozen=True)
class Edge:
    """A value [rows, ``columns``] fp32 that ``consumer`` takes from ``producer``.

    It has a row for each token of a step or, where ``logit_rows``, for each whose logits are wanted. ``residual``: it
    is the second thing that a norm gives, and the second that the next one takes.
    """

    producer: str
    consumer: str
    columns: int
    logit_rows: bool = False
    residual: bool = False

    def nbytes(self, tokens: int, logit_rows: int) -> int:
        """Return the bytes that move in a step of so many tokens when the two are on different devices."""
        return 4 * self.columns * (logit_rows if self.logit_rows else tokens)


def operator_names(model: nn.Module) -> tuple[str, ...]:
    """Return the names of a model's operators (its leaf modules), in the order in which they run."""
    return tuple(name for name, module in model.named_modules() if name and not any(module.children()))


def model_operators(layers: int) -> tuple[str, ...]:
    """Return the names of the operators of a model with so many layers, in the order in which they run."""
    each = (of_layer(layer, operator) for layer in range(layers) for operator in OF_LAYER)
    return (EMBED, *each, NORM, HEAD)


def of_layer(layer: int, operator: str) -> str:
    """Return the full name of one of :data:`OF_LAYER`."""
    return f"model.layers.{layer}.{operator}"


def edges(config: ModelConfig) -> tuple[Edge, ...]:
    """Return the values that flow between operators, those of the host (ids, tables, logits) left out."""
    found = []
    before, residual = EMBED, None  # who gives what the next norm adds, and to which residual
    for layer in range(config.num_hidden_layers):
        names = {name: of_layer(layer, name) for name in OF_LAYER}
        found += _into_norm(names[INPUT_NORM], before, residual, config.hidden_size)
        found += _chain(config, names, (INPUT_NORM, QKV, ATTENTION, OUT))
        found += _into_norm(names[POST_NORM], names[OUT], names[INPUT_NORM], config.hidden_size)
        found += _chain(config, names, (POST_NORM, GATE_UP, ACTIVATION, DOWN))
        before, residual = names[DOWN], names[POST_NORM]
    found += _into_norm(NORM, before, residual, config.hidden_size)
    return (*found, Edge(NORM, HEAD, config.hidden_size, logit_rows=True))


def _into_norm(norm: str, added: str, residual: str | None, hidden: int) -> list[Edge]:
    into = [Edge(added, norm, hidden)]
    return into if residual is None else [*into, Edge(residual, norm, hidden, residual=True)]


def _chain(config: ModelConfig, names: dict[str, str], chain: tuple[str, ...]) -> list[Edge]:
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    columns = {
        INPUT_NORM: config.hidden_size,
        QKV: (heads + 2 * kv_heads) * config.head_dim,
        ATTENTION: heads * config.head_dim,
        POST_NORM: config.hidden_size,
        GATE_UP: 2 * config.intermediate_size,
        ACTIVATION: config.intermediate_size,
    }
    return [Edge(names[one], names[other], columns[one]) for one, other in pairwise(chain)]
