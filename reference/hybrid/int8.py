"""INT8 for the CPU path: weights with one scale a channel, activations with one scale a token, exact integer sums.

Scales are symmetric: ``values = round(x / scale)`` in [-127, 127], ``scale = max |x| / 127`` of the channel or token.
One scale a token (not a tensor) keeps a request's result independent of its batch-mates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 # the name that everybody knows
from torch import Tensor

from gaugeblock.reference.hybrid.int8_product import LIMIT, integer_product
from gaugeblock.reference.hybrid.rotation import Turn, turned

SMALLEST = torch.finfo(torch.float32).tiny
"""The least scale: the smallest normal number, by which zeros stay zeros."""

FINER = 2 * LIMIT
"""A second digit's step is so much finer than the first one's: half a step, the most that is left, is 127 of it."""

MATRICES = ("qkv", "out", "gate_up", "down")
"""The fields of a layer that are quantised; norms stay in fp32."""


@dataclass(frozen=True, eq=False)
class Int8Matrix:
    """A weight matrix: ``values`` [out, in] int8, ``scales`` [out] fp32.

    What the input is multiplied by first is ``turn``: the matrix is one of turned inputs then. With two ``digits`` a
    second INT8 product takes what the first rounding of the input left.
    ``torch.nn.functional.linear`` and ``embedding`` take it in a weight tensor's place, so the model's forward pass is
    the same code.
    """

    values: Tensor
    scales: Tensor
    turn: Turn = ()
    digits: int = 1

    def dequantize(self) -> Tensor:
        """Return the matrix that the integers stand for, of turned inputs, [out, in] fp32."""
        return self.values.float() * self.scales[:, None]

    def rows(self, index: Tensor) -> Tensor:
        """Return the rows ``index`` [...] int64 of :meth:`dequantize`, [..., in] fp32."""
        return self.values[index].float() * self.scales[index, None]

    @property
    def nbytes(self) -> int:
        """Bytes of all its tensors."""
        return sum(part.nbytes for part in (self.values, self.scales, *self.turn))

    @classmethod
    def __torch_function__(
        cls, function: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if function is F.linear and len(args) == 2 and not kwargs:
            return linear(*args)
        if function is F.embedding and isinstance(args[1], Int8Matrix):
            return args[1].rows(args[0])
        raise TypeError(
            f"an INT8 matrix can be the weight of a linear layer without bias or of an embedding, not of {function}"
        )


def scales_of(x: Tensor) -> Tensor:
    """Return max |x| / 127 of each row of ``x`` [rows, columns], as [rows, 1]; positive also where all is zero."""
    return x.abs().amax(dim=-1, keepdim=True).div_(LIMIT).clamp_(min=SMALLEST)


def to_int8(x: Tensor, scales: Tensor) -> Tensor:
    """Return ``x / scales`` rounded to int8 in [-127, 127]."""
    return (x / scales).round_().clamp_(-LIMIT, LIMIT).char()


def quantize(weight: Tensor) -> Int8Matrix:
    """Quantise ``weight`` [out, in] fp32, with one scale an output channel."""
    scales = scales_of(weight)  # [out, 1]
    return Int8Matrix(to_int8(weight, scales), scales[:, 0])


def linear(x: Tensor, matrix: Int8Matrix) -> Tensor:
    """Return ``x`` [tokens, in] fp32, turned, times the transposed matrix, [tokens, out] fp32, by integers."""
    x = turned(x, matrix.turn)
    scales = scales_of(x)  # [tokens, 1]
    if matrix.digits == 1:
        product = integer_product(to_int8(x, scales), matrix.values)
    else:
        product = _two_digits(x / scales, matrix.values)
    return product.mul_(scales).mul_(matrix.scales)


def _two_digits(steps: Tensor, values: Tensor) -> Tensor:
    """Return the product of ``steps`` [tokens, in], activations in units of their scales, of two INT8 digits each."""
    whole = steps.round().clamp_(-LIMIT, LIMIT)
    first, second = whole.char(), (steps - whole).mul_(FINER).round_().clamp_(-LIMIT, LIMIT).char()
    if len(steps) == 1:  # the kernel for one token is more than twice as fast as that for several
        return integer_product(first, values).add_(integer_product(second, values), alpha=1 / FINER)
    both = integer_product(torch.cat((first, second)), values)  # reads the weights once
    return both[: len(steps)].add_(both[len(steps) :], alpha=1 / FINER)
