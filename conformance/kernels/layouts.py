"""Where tensors lie in memory: inside larger buffers full of NaN, strided, transposed, with more dimensions."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.utils.deterministic

MARGIN = 4  # elements of guard on either side of a row, and one row above and below


class Guarded:
    """A tensor that is a window into a larger buffer of NaN; integers lie among the largest int8, or among ones.

    One or two dimensions: guarded on all sides, hence strided. More (a paged cache): contiguous, guarded at both ends.
    """

    def __init__(self, values: torch.Tensor, *, empty: bool = False) -> None:
        """Copy ``values`` into the window; ``empty`` leaves the guard's value there too."""
        self._fill = guard_value(values.dtype)
        flat = values.dim() > 2
        shape = [values.numel() + 2 * MARGIN] if flat else [size + 2 * MARGIN for size in values.shape]
        self._buffer = torch.full(shape, self._fill, dtype=values.dtype, device=values.device)
        self._inside = tuple(slice(MARGIN, -MARGIN) for _ in shape)
        inner = self._buffer[self._inside]
        self.window = inner.view(values.shape) if flat else inner
        if not empty:
            self.window.copy_(values)

    def overwritten(self) -> int:
        """Return how many elements around the window do not have the guard's value any more."""
        outside = torch.ones_like(self._buffer, dtype=torch.bool)
        outside[self._inside] = False
        kept = self._buffer.isnan() if math.isnan(self._fill) else self._buffer == self._fill
        return int((outside & ~kept).sum())


def guard_value(dtype: torch.dtype) -> float:
    """Return what stands around tensors of a dtype: NaN where there is one; integers must stay legal as indices."""
    return math.nan if dtype.is_floating_point else 127 if dtype == torch.int8 else 1


def strided(values: torch.Tensor) -> torch.Tensor:
    """Return the same values as the left part of rows that are 16 longer."""
    guard = guard_value(values.dtype)
    wide = torch.full((*values.shape[:-1], values.shape[-1] + 16), guard, dtype=values.dtype, device=values.device)
    wide[..., : values.shape[-1]] = values
    return wide[..., : values.shape[-1]]


def transposed(values: torch.Tensor) -> torch.Tensor:
    """Return the same values with the first dimension innermost in memory."""
    return values.movedim(0, -1).contiguous().movedim(-1, 0)


@contextmanager
def nan_for_uninitialised() -> Iterator[None]:
    """Let ``torch.empty`` and its kin return NaN, so that what a kernel leaves unwritten shows."""
    memory: Any = torch.utils.deterministic  # a module whose attribute is a property
    mode, filled = torch.get_deterministic_debug_mode(), memory.fill_uninitialized_memory
    torch.set_deterministic_debug_mode("warn")
    memory.fill_uninitialized_memory = True
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(mode)
        memory.fill_uninitialized_memory = filled
