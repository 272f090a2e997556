"""The exact product of two INT8 matrices on a CPU, by the fastest route that is exact on this processor.

``torch._int_mm`` reads the weights as they are: no packed copy that doubles their memory or outlives them. With VNNI
instructions it adds in 32 bits. Without, it adds pairs of products in 16 bits first, which saturate (pytorch#103646,
ao#4266): two of 127 · 127 come out as 32767 or less. So a route is tried at the extremes, once a process, before it is
taken; floating point, whose sums of integers are exact within 2^24 (fp32) and 2^53 (float64), is the one that is left.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F  # noqa: N812 # the name that everybody knows
from torch import Tensor

LIMIT = 127  # the largest magnitude: symmetric, so that -128 is not used
EXACT_COLUMNS = 2**24 // LIMIT**2  # so many products of two int8 values sum up to an integer that fp32 holds exactly

Product = Callable[[Tensor, Tensor], Tensor]  # of int8 [tokens, in] and [out, in]: [tokens, out], int32 or fp32


def integer_product(x: Tensor, weight: Tensor) -> Tensor:
    """Return the sums of products of two int8 matrices, [tokens, in] and [out, in], as fp32 [tokens, out].

    Exact as integers, then rounded to fp32 where they exceed 2^24. ``in`` is at most 2^17, whose sums int32 holds.
    """
    return best_route()(x, weight).float()


def by_integers(x: Tensor, weight: Tensor) -> Tensor:
    """Return the int32 product of PyTorch's integer matrix multiplication."""
    if x.shape[1] == 1:  # torch 2.13 leaves the result of a sum of one product unwritten
        x, weight = F.pad(x, (0, 1)), F.pad(weight, (0, 1))
    product: Tensor = torch._int_mm(x, weight.t())
    return product


def by_floats(x: Tensor, weight: Tensor) -> Tensor:
    """Return the fp32 product, computed in fp32 where every partial sum stays below 2^24, else in float64."""
    wide = torch.float64 if x.shape[1] > EXACT_COLUMNS else torch.float32
    return F.linear(x.to(wide), weight.to(wide)).float()


ROUTES: tuple[Product, ...] = (by_integers, by_floats)
"""From the fastest to the one that is exact on every processor."""


@cache
def best_route() -> Product:
    """Return the first of :data:`ROUTES` that is exact here."""
    return next((route for route in ROUTES[:-1] if is_exact(route)), ROUTES[-1])


def is_exact(route: Product) -> bool:
    """Whether a route gives the right integers at the extremes, for one token, a few and a chunk.

    All the same sign saturates 16-bit sums of pairs either way; an odd width shows a remainder that is added otherwise.
    """
    for tokens in (1, 3, 40):
        for x_value, weight_value in ((LIMIT, LIMIT), (LIMIT, -LIMIT), (-LIMIT, LIMIT), (-LIMIT, -LIMIT)):
            x = torch.full((tokens, 131), x_value, dtype=torch.int8)
            weight = torch.full((17, 131), weight_value, dtype=torch.int8)
            try:
                sums = route(x, weight)
            except (RuntimeError, NotImplementedError):  # not built for this processor
                return False
            if not bool((sums == 131 * x_value * weight_value).all()):
                return False
    return True
