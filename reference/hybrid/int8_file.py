"""INT8 weights as one file, so that a model is quantised once: safetensors, whose metadata say what it was made of.

A file is of one revision of the fp32 weights and is refused for any other, since stale weights answer as fluently as
right ones. A digest over all tensors stands in the metadata: a header that fits says nothing about the bytes after it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gaugeblock.reference.engine.config import ModelConfig
from gaugeblock.reference.engine.errors import ModelError
from gaugeblock.reference.engine.loader import LayerWeights, Weights
from gaugeblock.reference.hybrid.int8 import MATRICES, Int8Matrix
from gaugeblock.reference.hybrid.recipe import Recipe

FORMAT = "gaugeblock int8 weights"
VERSION = 1
NORMS = ("input_norm", "post_norm")
AGAIN = "remove it to have it made again, or name another file"


def save_weights(path: Path, weights: Weights, revision: str, recipe: Recipe) -> None:
    """Write a quantised model in one piece. ``revision``: the digest of the fp32 weights that it was made from.

    Raises:
        ModelError: it cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    shared: dict[str, str] = {}  # a name and the one whose tensor it has, too
    names: dict[tuple[int, torch.Size], str] = {}
    for name, tensor in named_tensors(weights):
        first = names.setdefault((tensor.data_ptr(), tensor.shape), name)
        if first == name:
            tensors[name] = tensor.contiguous()
        else:
            shared[name] = first
    about = {"version": VERSION, "revision": revision, "recipe": asdict(recipe), "shared": shared,
             "digest": _digest(tensors)}  # fmt: skip
    draft = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        save_file(tensors, draft, metadata={FORMAT: json.dumps(about)})
        draft.replace(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"cannot write INT8 weights to {path}: {error}") from error
    finally:
        draft.unlink(missing_ok=True)


def load_weights(path: Path, config: ModelConfig, revision: str) -> Weights:
    """Read what :func:`save_weights` wrote, bit by bit, for the model of ``config`` with fp32 weights ``revision``.

    Raises:
        ModelError: no such file, not all of it, another format, version, model or revision; the message says which.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = _about(path, file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 # not a dict
    except (OSError, SafetensorError) as error:
        raise ModelError(f"cannot read INT8 weights from {path}: {error}; {AGAIN}") from error
    if about["revision"] != revision:
        raise ModelError(
            f"{path} was made from weights {str(about['revision'])[:12]}…, the model has {revision[:12]}…; {AGAIN}"
        )
    if about["digest"] != _digest(tensors):
        raise ModelError(f"{path} is damaged: its tensors are not those that were written; {AGAIN}")
    tensors |= {name: tensors[first] for name, first in about["shared"].items() if first in tensors}
    return _Reader(path, config, tensors, tuple(about["recipe"]["second_digit"])).weights()


def load_recipe(path: Path) -> Recipe:
    """Return what the weights in a file were made by.

    Raises:
        ModelError: as for :func:`load_weights`, of the file's head alone.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = _about(path, file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise ModelError(f"cannot read INT8 weights from {path}: {error}; {AGAIN}") from error
    made: dict[str, Any] = about["recipe"]
    return Recipe(**{**made, "second_digit": tuple(made["second_digit"])})


def named_tensors(weights: Weights) -> Iterator[tuple[str, Tensor]]:
    """Yield every tensor of a quantised model with its name in the file; shared ones under each name.

    A matrix that is in fp32 has the name alone.
    """
    yield from _parts("embed", weights.embed)
    for number, layer in enumerate(weights.layers):
        for name in NORMS:
            yield f"layers.{number}.{name}", getattr(layer, name)
        for name in MATRICES:
            yield from _parts(f"layers.{number}.{name}", getattr(layer, name))
    yield "norm", weights.norm
    yield from _parts("head", weights.head)


def stored_bytes(weights: Weights) -> int:
    """Return the bytes of all tensors, each counted once however many names it has."""
    return sum({tensor.data_ptr(): tensor.nbytes for _, tensor in named_tensors(weights)}.values())


def content_digest(weights: Weights) -> str:
    """Return the SHA-256 of a quantised model: the revision of KV that it computes."""
    return _digest(dict(named_tensors(weights)))


def _parts(name: str, matrix: object) -> Iterator[tuple[str, Tensor]]:
    if isinstance(matrix, Tensor):
        yield name, matrix
        return
    assert isinstance(matrix, Int8Matrix)
    yield f"{name}.values", matrix.values
    yield f"{name}.scales", matrix.scales
    for number, factor in enumerate(matrix.turn):
        yield f"{name}.turn.{number}", factor


def _digest(tensors: dict[str, Tensor]) -> str:
    total = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        total.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def _about(path: Path, metadata: dict[str, str]) -> dict[str, Any]:
    if FORMAT not in metadata:
        raise ModelError(f"{path} holds no INT8 weights of gaugeblock; {AGAIN}")
    try:
        about = json.loads(metadata[FORMAT])
        version = about["version"]
        if version == VERSION and not (
            {"revision", "shared", "digest"} <= set(about) and "second_digit" in about["recipe"]
        ):
            raise ValueError("a field is missing")
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"the metadata of {path} is damaged: {error}; {AGAIN}") from error
    if version != VERSION:
        raise ModelError(f"{path} has version {version}, this kit reads {VERSION}; {AGAIN}")
    found: dict[str, Any] = about
    return found


@dataclass(frozen=True)
class _Reader:
    path: Path
    config: ModelConfig
    tensors: dict[str, Tensor]
    second_digit: tuple[str, ...]

    def weights(self) -> Weights:
        c = self.config
        heads = c.num_attention_heads * c.head_dim
        qkv = heads + 2 * c.num_key_value_heads * c.head_dim
        sizes = {
            "qkv": (qkv, c.hidden_size),
            "out": (c.hidden_size, heads),
            "gate_up": (2 * c.intermediate_size, c.hidden_size),
            "down": (c.hidden_size, c.intermediate_size),
        }

        def layer(number: int) -> LayerWeights:
            prefix = f"layers.{number}."
            norms = {name: self.take(prefix + name, torch.float32, c.hidden_size) for name in NORMS}
            return LayerWeights(**norms, **{name: self.matrix(prefix + name, *sizes[name]) for name in MATRICES})

        return Weights(
            embed=self.matrix("embed", c.vocab_size, c.hidden_size),
            layers=tuple(layer(number) for number in range(c.num_hidden_layers)),
            norm=self.take("norm", torch.float32, c.hidden_size),
            head=self.matrix("head", c.vocab_size, c.hidden_size),
        )

    def matrix(self, name: str, rows: int, columns: int) -> Tensor:
        factors = [self.tensors[key] for n in range(2) if (key := f"{name}.turn.{n}") in self.tensors]
        values = self.take(f"{name}.values", torch.int8, rows, columns)
        scales = self.take(f"{name}.scales", torch.float32, rows)
        digits = 2 if name.rpartition(".")[2] in self.second_digit else 1
        found = Int8Matrix(values, scales, turn=tuple(factors), digits=digits)
        return cast("Tensor", found)  # stands in for one by __torch_function__

    def take(self, name: str, dtype: torch.dtype, *shape: int) -> Tensor:
        tensor = self.tensors.get(name)
        if tensor is None:
            raise ModelError(f"{self.path} lacks tensor {name}; {AGAIN}")
        if tensor.dtype != dtype or tuple(tensor.shape) != shape:
            raise ModelError(
                f"{self.path}: {name} is {tensor.dtype} {tuple(tensor.shape)}, the model needs {dtype} {shape}; {AGAIN}"
            )
        return tensor
