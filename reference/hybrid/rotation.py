"""Rotations that spread a loud channel over all of them, so that one INT8 scale a token fits every channel.

An orthogonal matrix R changes no product: W x = (W Rᵀ)(R x). In the residual stream it costs nothing at run time: R is
multiplied into the weights on both sides, and RMSNorm, its weights folded into the next matrix, does not see it
(SliceGPT, arXiv 2401.15024). Behind a nonlinearity the input is turned as it comes (QuaRot, arXiv 2404.00456), by a
Kronecker product of two small factors, which is cheap.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F  # noqa: N812 # the name that everybody knows
from torch import Tensor

from gaugeblock.reference.engine.config import ModelConfig
from gaugeblock.reference.engine.loader import LayerWeights, Weights

Turn = tuple[Tensor, ...]
"""Square matrices whose Kronecker product a vector is multiplied by, at most two; none: it stays as it is."""


def turned(x: Tensor, turn: Turn) -> Tensor:
    """Return each row of ``x`` [tokens, width] multiplied by ``turn``, same shape."""
    if not turn:
        return x
    if len(turn) == 1:
        return F.linear(x, turn[0])
    first, second = turn
    grid = F.linear(x.reshape(-1, len(second)), second).view(len(x), len(first), len(second))
    return torch.matmul(first, grid).flatten(1)


def kronecker(size: int) -> tuple[Tensor, Tensor]:
    """Return two orthogonal factors, fp32, whose product is ``size`` wide: as near to its root as powers of two allow.

    No entry of the product is large: Hadamard matrices for the power of two, cosines (DCT-II) for the odd rest.
    """
    two = size & -size  # the largest power of two that divides the size
    first = max((p for p in _powers(two) if p * p <= size), default=1)
    return hadamard(first).float(), torch.kron(hadamard(two // first), cosines(size // two)).float()


def orthogonal(size: int) -> Tensor:
    """Return the whole matrix [size, size] float64 of the same kind."""
    two = size & -size
    return torch.kron(hadamard(two), cosines(size // two))


def hadamard(size: int) -> Tensor:
    """Return Sylvester's Hadamard matrix of a power of two, divided by √size, float64."""
    matrix = torch.ones(1, 1, dtype=torch.float64)
    for _ in range(size.bit_length() - 1):
        matrix = torch.cat((torch.cat((matrix, matrix), 1), torch.cat((matrix, -matrix), 1)))
    scaled: Tensor = matrix * size**-0.5
    return scaled


def cosines(size: int) -> Tensor:
    """Return the orthonormal DCT-II matrix [size, size], float64."""
    k = torch.arange(size, dtype=torch.float64)
    matrix: Tensor = torch.cos(torch.pi / size * torch.outer(k, k + 0.5)) * (2 / size) ** 0.5
    matrix[0] /= 2**0.5
    return matrix


def rotate_stream(weights: Weights) -> tuple[Weights, Tensor]:
    """Return the same model with a rotated residual stream, and what the head's input must be multiplied by.

    All fp32. The norms' weights are ones; the last one's cannot be folded into a head that is also the embedding, so it
    becomes a matrix [hidden, hidden] before the head. ``head`` is the turned head without that matrix.
    """
    rotation = orthogonal(weights.norm.shape[0])  # x' = x R, as rows
    ones = torch.ones_like(weights.norm)

    def layer(old: LayerWeights) -> LayerWeights:
        return LayerWeights(
            input_norm=ones,
            qkv=_times(old.qkv * old.input_norm, rotation),
            out=_times(old.out.t(), rotation).t().contiguous(),
            post_norm=ones,
            gate_up=_times(old.gate_up * old.post_norm, rotation),
            down=_times(old.down.t(), rotation).t().contiguous(),
        )

    embed = _times(weights.embed, rotation)
    head = embed if weights.head is weights.embed else _times(weights.head, rotation)
    before = rotation.t() @ (weights.norm.double()[:, None] * rotation)  # symmetric
    layers = tuple(layer(old) for old in weights.layers)
    return replace(weights, embed=embed, layers=layers, norm=ones, head=head), before.float()


def rotate_values(weights: Weights, config: ModelConfig) -> Weights:
    """Return the same model, all fp32, whose values in attention are rotated within each head, and back in ``out``.

    Attention sums up whole values, so that it does not matter to it.
    """
    rotation = orthogonal(config.head_dim)
    rows = config.num_key_value_heads * config.head_dim  # the last ones of ``qkv``

    def layer(old: LayerWeights) -> LayerWeights:
        values = old.qkv[-rows:].t().reshape(-1, config.head_dim)  # [hidden * kv_heads, head_dim]
        qkv = torch.cat((old.qkv[:-rows], _times(values, rotation).view(-1, rows).t()))
        out = _times(old.out.reshape(-1, config.head_dim), rotation).view_as(old.out)
        return replace(old, qkv=qkv, out=out)

    return replace(weights, layers=tuple(layer(old) for old in weights.layers))


def turn_input(weight: Tensor, turn: Turn) -> Tensor:
    """Return the matrix for an input that ``turn`` was applied to, [out, in] fp32."""
    return turned(weight, turn).contiguous()  # W Kᵀ: each row is multiplied by K


def _times(matrix: Tensor, rotation: Tensor) -> Tensor:
    product: Tensor = matrix.double() @ rotation
    return product.float()


def _powers(largest: int) -> list[int]:
    return [1 << shift for shift in range(largest.bit_length())]
