"""INT8 for the CPU path: weights with one scale a channel, activations with one scale a token, exact integer sums.

Scales are symmetric: ``values = round(x / scale)`` in [-127, 127], ``scale = max |x| / 127`` of the channel or token.
One scale a token (not a tensor) keeps a request's result independent of its batch-mates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
import torch.nn.functional as F  # noqa: N812 # the name that everybody knows
from torch import Tensor

from gaugeblock.reference.engine.loader import LayerWeights, Weights

LIMIT = 127
EXACT_COLUMNS = 2**24 // LIMIT**2  # so many products of two int8 values sum up to an integer that fp32 holds exactly

MATRICES = ("qkv", "out", "gate_up", "down")
"""The fields of a layer that are quantised; embeddings, norms and the output head stay in fp32."""


@dataclass(frozen=True, eq=False)
class Int8Matrix:
    """A weight matrix: ``values`` [out, in] int8, ``scales`` [out] fp32.

    ``torch.nn.functional.linear`` takes it in a weight tensor's place, so the model's forward pass is the same code.
    """

    values: Tensor
    scales: Tensor

    def dequantize(self) -> Tensor:
        """Return the matrix that the integers stand for, [out, in] fp32."""
        return self.values.float() * self.scales[:, None]

    @classmethod
    def __torch_function__(
        cls, function: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if function is not F.linear or kwargs or len(args) != 2:
            raise TypeError(f"an INT8 matrix can only be the weight of a linear layer without bias, not of {function}")
        return linear(*args)


def scales_of(x: Tensor) -> Tensor:
    """Return max |x| / 127 of each row of ``x`` [rows, columns], as [rows, 1]; 1 where all is zero."""
    scales = x.abs().amax(dim=-1, keepdim=True) / LIMIT
    return torch.where(scales > 0, scales, torch.ones_like(scales))


def to_int8(x: Tensor, scales: Tensor) -> Tensor:
    """Return ``x / scales`` rounded to int8 in [-127, 127]."""
    return (x / scales).round().clamp(-LIMIT, LIMIT).to(torch.int8)


def quantize(weight: Tensor) -> Int8Matrix:
    """Quantise ``weight`` [out, in] fp32, with one scale an output channel."""
    scales = scales_of(weight)  # [out, 1]
    return Int8Matrix(to_int8(weight, scales), scales[:, 0])


def integer_product(x: Tensor, weight: Tensor) -> Tensor:
    """Return the exact sums of products of two int8 matrices, [tokens, in] and [out, in], as fp32 [tokens, out].

    Computed in fp32, where every partial sum is an integer below 2^24, whatever the order; wider ones in float64.
    """
    wide = torch.float64 if x.shape[1] > EXACT_COLUMNS else torch.float32
    return F.linear(x.to(wide), weight.to(wide)).float()


def linear(x: Tensor, matrix: Int8Matrix) -> Tensor:
    """Return ``x`` [tokens, in] fp32 times the transposed matrix, [tokens, out] fp32, by integers."""
    scales = scales_of(x)  # [tokens, 1]
    return integer_product(to_int8(x, scales), matrix.values) * scales * matrix.scales


def int8_weights(weights: Weights) -> Weights:
    """Return a model's weights with the layers' matrices quantised, for the same model code."""
    return replace(weights, layers=tuple(_int8_layer(layer) for layer in weights.layers))


def _int8_layer(layer: LayerWeights) -> LayerWeights:
    # An Int8Matrix stands in for a Tensor by __torch_function__, which the type system cannot express.
    quantized = {name: cast("Tensor", quantize(getattr(layer, name))) for name in MATRICES}
    return replace(layer, **quantized)
