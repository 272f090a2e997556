"""Input values for the kernels: made on the CPU from a seed, so that the same seed means the same data on every device.

``torch.randn`` on a GPU depends on its number of multiprocessors (vLLM #56117).
"""

from __future__ import annotations

from collections.abc import Callable

import torch

Fill = Callable[[torch.Tensor], torch.Tensor]

_LIMIT = {torch.float16: 7, torch.bfloat16: 20, torch.float32: 20}  # exponent of the largest row scale


def normal(rows: int, columns: int, seed: int) -> torch.Tensor:
    """Return standard normal float64 values ``[rows, columns]``."""
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def fill(kind: str, rows: int, columns: int, dtype: torch.dtype, seed: int) -> torch.Tensor:
    """Return ``[rows, columns]`` of ``dtype`` on the CPU.

    Kinds: ``normal`` N(0, 2²); ``small`` N(0, 10⁻⁶), where an epsilon of 10⁻⁶ weighs as much as the data; ``scaled``
    one power of two a row, from tiny to large, so that a global tolerance cannot see the small rows; ``offset`` a
    mean 500 × the deviation; ``denormal`` multiples of the dtype's smallest number; ``large`` ±, near where exp
    overflows fp32; ``zeros`` +0 and −0.
    """
    values = normal(rows, columns, seed)
    if kind == "normal":
        values = 2 * values
    elif kind == "small":
        values = 1e-3 * values
    elif kind == "scaled":
        limit = _LIMIT[dtype]
        exponents = torch.linspace(-limit, limit, max(rows, 1), dtype=torch.float64)[:rows].round()
        values = values * torch.exp2(exponents)[:, None]
    elif kind == "offset":
        values = 500 + values
    elif kind == "denormal":
        info = torch.finfo(dtype)
        values = (values * 8).round() * (info.smallest_normal * info.eps)
    elif kind == "large":
        values = values.sign() * torch.linspace(60, 130, columns, dtype=torch.float64)
    elif kind == "zeros":
        values = torch.copysign(torch.zeros_like(values), values)
    else:
        raise ValueError(f"no values of kind {kind!r}")
    return values.to(dtype)
