"""One model of two precisions: INT8 matrices on the host, and fp32 ones where a placement says device.

The recipe has rotated the residual stream and each head's values, so whoever is in fp32 must be rotated too. What the
INT8 path does at run time is not needed there: the input of ``down`` comes as it is, and what the head's input is
multiplied by is in the head.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import torch

from gaugeblock.reference.engine.config import ModelConfig
from gaugeblock.reference.engine.loader import Weights
from gaugeblock.reference.hybrid.operators import DOWN, EMBED, GATE_UP, HEAD, OUT, QKV, of_layer
from gaugeblock.reference.hybrid.recipe import Recipe, rotated_weights

FIELDS = {QKV: "qkv", OUT: "out", GATE_UP: "gate_up", DOWN: "down"}


@torch.inference_mode()
def with_exact(
    weights: Weights, exact: Weights, config: ModelConfig, recipe: Recipe, operators: Collection[str]
) -> Weights:
    """Return INT8 ``weights`` in which the matrices of ``operators`` (by name) are in fp32.

    ``exact``: the fp32 weights that ``weights`` were made of by ``recipe``. A head that is also the embedding is a
    matrix of its own then.
    """
    some = [n for n in range(len(exact.layers)) if any(of_layer(n, name) in operators for name in FIELDS)]
    rotated, before = rotated_weights(replace(exact, layers=tuple(exact.layers[n] for n in some)), config, recipe)
    layers = list(weights.layers)
    for number, layer in zip(some, rotated.layers, strict=True):
        layers[number] = layer
    head = rotated.head if before is None or HEAD not in operators else rotated.head @ before
    return with_matrices(weights, replace(rotated, layers=tuple(layers), head=head), operators)


def with_matrices(weights: Weights, others: Weights, operators: Collection[str]) -> Weights:
    """Return ``weights`` in which the matrices of ``operators`` (by name) are those of ``others``."""

    def fields(names: Mapping[str, str], source: object) -> dict[str, Any]:
        return {field: getattr(source, field) for name, field in names.items() if name in operators}

    layers = [
        replace(layer, **fields({of_layer(number, name): field for name, field in FIELDS.items()}, other))
        for number, (layer, other) in enumerate(zip(weights.layers, others.layers, strict=True))
    ]
    return replace(weights, layers=tuple(layers), **fields({EMBED: "embed", HEAD: "head"}, others))
