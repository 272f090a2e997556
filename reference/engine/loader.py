"""Weights of a Llama model: ``model.safetensors`` in any float type, loaded as fp32 and fused for the forward pass."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from gaugeblock.reference.engine.config import ModelConfig
from gaugeblock.reference.engine.errors import ModelError


@dataclass(frozen=True)
class LayerWeights:
    """One decoder layer. All fp32, matrices as [out, in]."""

    input_norm: Tensor  # [hidden]
    qkv: Tensor  # [(heads + 2 * kv_heads) * head_dim, hidden]
    out: Tensor  # [hidden, heads * head_dim]
    post_norm: Tensor  # [hidden]
    gate_up: Tensor  # [2 * intermediate, hidden]
    down: Tensor  # [hidden, intermediate]


@dataclass(frozen=True)
class Weights:
    """A whole model. All fp32."""

    embed: Tensor  # [vocab, hidden]
    layers: tuple[LayerWeights, ...]
    norm: Tensor  # [hidden]
    head: Tensor  # [vocab, hidden]


def load_weights(folder: Path, config: ModelConfig) -> Weights:
    """Load ``model.safetensors``.

    Raises:
        ModelError: an unreadable file, a missing tensor, or one of another shape than ``config`` says.
    """
    path = folder / "model.safetensors"
    try:
        with safe_open(path, framework="pt") as file:
            # A copy, also of fp32: the file's own memory lies at any address, and with it change kernels and bits.
            names = file.keys()
            tensors = {name: file.get_tensor(name).to(torch.float32, copy=True) for name in names}
    except (OSError, SafetensorError) as error:
        raise ModelError(f"cannot read {path}: {error}") from error
    return _Reader(path, config, tensors).weights()


def weights_digest(folder: Path) -> str:
    """Return the SHA-256 of ``model.safetensors``: the revision that KV keys cover."""
    path = folder / "model.safetensors"
    seen = path.stat()
    return _file_digest(path, seen.st_ino, seen.st_size, seen.st_mtime_ns)


@lru_cache(maxsize=8)
def _file_digest(path: Path, *_version: int) -> str:
    """Read a file once for each version of it: several engines of one process may serve the same one."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class _Reader:
    path: Path
    config: ModelConfig
    tensors: dict[str, Tensor]

    def take(self, name: str, *shape: int) -> Tensor:
        tensor = self.tensors.get(name)
        if tensor is None:
            raise ModelError(f"{self.path} lacks tensor {name}")
        if tuple(tensor.shape) != shape:
            raise ModelError(f"{self.path}: {name} has shape {tuple(tensor.shape)}, config.json asks for {shape}")
        return tensor

    def weights(self) -> Weights:
        c = self.config
        embed = self.take("model.embed_tokens.weight", c.vocab_size, c.hidden_size)
        head = embed if c.tie_word_embeddings else self.take("lm_head.weight", c.vocab_size, c.hidden_size)
        return Weights(
            embed=embed,
            layers=tuple(self.layer(i) for i in range(c.num_hidden_layers)),
            norm=self.take("model.norm.weight", c.hidden_size),
            head=head,
        )

    def layer(self, index: int) -> LayerWeights:
        c, prefix = self.config, f"model.layers.{index}."
        hidden, inner = c.hidden_size, c.intermediate_size
        q_rows, kv_rows = c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim

        def matrix(name: str, rows: int, columns: int) -> Tensor:
            return self.take(f"{prefix}{name}.weight", rows, columns)

        return LayerWeights(
            input_norm=self.take(f"{prefix}input_layernorm.weight", hidden),
            qkv=torch.cat(
                [
                    matrix("self_attn.q_proj", q_rows, hidden),
                    matrix("self_attn.k_proj", kv_rows, hidden),
                    matrix("self_attn.v_proj", kv_rows, hidden),
                ]
            ),
            out=matrix("self_attn.o_proj", hidden, q_rows),
            post_norm=self.take(f"{prefix}post_attention_layernorm.weight", hidden),
            gate_up=torch.cat([matrix("mlp.gate_proj", inner, hidden), matrix("mlp.up_proj", inner, hidden)]),
            down=matrix("mlp.down_proj", hidden, inner),
        )
