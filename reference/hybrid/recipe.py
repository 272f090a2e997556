"""How a model becomes INT8: rotated, calibrated on texts of its own, rounded.

Plain INT8 (one scale a channel of weights, one a token of activations) keeps .92 of SmolLM2's next-token distributions:
a few loud channels of activations leave the others a few steps. docs/hybrid.md has what each step here brings.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any, cast

import torch
import torch.nn.functional as F  # noqa: N812 # the name that everybody knows
from torch import Tensor

from gaugeblock.reference.engine.config import ModelConfig
from gaugeblock.reference.engine.loader import LayerWeights, Weights
from gaugeblock.reference.engine.model import LlamaModel
from gaugeblock.reference.hybrid.int8 import MATRICES, Int8Matrix, quantize, scales_of
from gaugeblock.reference.hybrid.rotation import Turn, kronecker, rotate_stream, rotate_values, turn_input
from gaugeblock.reference.hybrid.rounding import compensated

CALIBRATION_TOKENS = 96  # of a text

Prompts = Sequence[Sequence[int]]  # token ids


@dataclass(frozen=True)
class Recipe:
    """Which steps are taken, each of them for less error at the same size.

    ``rotate_stream``: the residual stream, which is the input of ``qkv``, ``gate_up`` and the head; ``rotate_values``:
    the values of each head, and so the input of ``out``; both cost nothing at run time. ``rotate_down``: the input of
    ``down``, as it comes. ``calibrate``: weights are rounded for the model's own inputs. ``second_digit``: matrices
    whose input has two INT8 digits, as exact as 15 bits; these products are computed twice over the same weights.
    """

    rotate_stream: bool = True
    rotate_values: bool = True
    rotate_down: bool = True
    calibrate: bool = True
    second_digit: tuple[str, ...] = ("qkv", "out")


def calibration_prompts(encode: Callable[[str], Sequence[int]]) -> list[tuple[int, ...]]:
    """Return the texts that come with the kit as token ids; none of them is one that a similarity is measured on."""
    text = (resources.files(__package__) / "calibration.json").read_text(encoding="utf-8")
    return [tuple(encode(one))[:CALIBRATION_TOKENS] for one in json.loads(text)]


@torch.inference_mode()
def quantize_model(weights: Weights, config: ModelConfig, prompts: Prompts, recipe: Recipe | None = None) -> Weights:
    """Return fp32 ``weights`` in INT8: all matrices, embedding and head included, a tied one once; norms in fp32.

    The same weights and prompts give the same bits on one machine. The same model code runs the result.

    Raises:
        ValueError: a recipe that calibrates, and no prompts.
    """
    recipe = recipe or Recipe()
    if recipe.calibrate and not any(prompts):
        raise ValueError("calibrated rounding needs prompts: give token ids of text that the model is made for")
    plain, before = rotated_weights(weights, config, recipe)
    turn = kronecker(plain.layers[0].down.shape[1]) if recipe.rotate_down else ()
    seen = _watch(plain, config, prompts) if recipe.calibrate else None
    layers = tuple(
        _quantized_layer(layer, turn, recipe, None if seen is None else seen.layers[index])
        for index, layer in enumerate(plain.layers)
    )
    head_gram = None if seen is None else _gram(seen.head)
    if before is not None and head_gram is not None:
        head_gram = before @ head_gram @ before.t()
    head = _rounded(plain.head, head_gram)
    embed = head if plain.head is plain.embed else quantize(plain.embed)
    if before is not None:
        head = replace(head, turn=(before,))
    return replace(plain, embed=_as_tensor(embed), layers=layers, head=_as_tensor(head))


def rotated_weights(weights: Weights, config: ModelConfig, recipe: Recipe) -> tuple[Weights, Tensor | None]:
    """Return the same fp32 model rotated, without its turned inputs, and what the head's input is multiplied by."""
    plain = rotate_values(weights, config) if recipe.rotate_values else weights
    return rotate_stream(plain) if recipe.rotate_stream else (plain, None)


def _quantized_layer(layer: LayerWeights, turn: Turn, recipe: Recipe, seen: LayerWeights | None) -> LayerWeights:
    made = {}
    for name in MATRICES:
        weight, gram = getattr(layer, name), None if seen is None else _gram(getattr(seen, name))
        if name == "down" and turn:
            weight = turn_input(weight, turn)
            gram = None if gram is None else turn_input(turn_input(gram, turn).t(), turn)
        digits = 2 if name in recipe.second_digit else 1
        made[name] = _as_tensor(replace(_rounded(weight, gram), turn=turn if name == "down" else (), digits=digits))
    return replace(layer, **made)


def _rounded(weight: Tensor, gram: Tensor | None) -> Int8Matrix:
    if gram is None:
        return quantize(weight)
    scales = scales_of(weight)
    return Int8Matrix(compensated(weight, scales, gram), scales[:, 0])


class _Watched:
    """Stands in for a weight; sums up xᵀ x [in, in] over its inputs, and multiplies by it unless it is the head."""

    def __init__(self, weight: Tensor, head: bool = False) -> None:
        self.weight = weight
        self.head = head
        self.gram = torch.zeros(weight.shape[1], weight.shape[1])

    @classmethod
    def __torch_function__(
        cls, function: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Tensor:
        x, watched = args
        watched.gram.addmm_(x.t(), x)
        return x if watched.head else F.linear(x, watched.weight)


def _watch(weights: Weights, config: ModelConfig, prompts: Prompts) -> Weights:
    """Return stand-ins of all matrices that have seen the prompts. The head is not multiplied with: nothing follows."""
    layers = tuple(
        replace(layer, **{name: cast("Tensor", _Watched(getattr(layer, name))) for name in MATRICES})
        for layer in weights.layers
    )
    watched = replace(weights, layers=layers, head=cast("Tensor", _Watched(weights.head, head=True)))
    model = LlamaModel(config, watched)
    for ids in prompts:
        if ids:
            model.forward_full(torch.tensor(list(ids)))
    return watched


def _gram(watched: object) -> Tensor:
    assert isinstance(watched, _Watched)
    return watched.gram


def _as_tensor(matrix: Int8Matrix) -> Tensor:
    # An Int8Matrix stands in for a Tensor by __torch_function__, which the type system cannot express.
    return cast("Tensor", matrix)
