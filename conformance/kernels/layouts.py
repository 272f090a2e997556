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
    """A tensor that is a window into a larger buffer filled with NaN."""

    def __init__(self, values: torch.Tensor, *, empty: bool = False) -> None:
        """Copy ``values`` (one or two dimensions) into the window; ``empty`` leaves NaN there too."""
        shape = [size + 2 * MARGIN for size in values.shape]
        self._buffer = torch.full(shape, math.nan, dtype=values.dtype, device=values.device)
        self.window = self._buffer[tuple(slice(MARGIN, -MARGIN) for _ in shape)]
        if not empty:
            self.window.copy_(values)

    def overwritten(self) -> int:
        """Return how many elements around the window are NaN no more."""
        outside = torch.ones_like(self._buffer, dtype=torch.bool)
        outside[tuple(slice(MARGIN, -MARGIN) for _ in outside.shape)] = False
        return int((outside & ~self._buffer.isnan()).sum())


def strided(values: torch.Tensor) -> torch.Tensor:
    """Return the same values as the left part of rows that are 16 longer."""
    wide = values.new_full((*values.shape[:-1], values.shape[-1] + 16), math.nan)
    wide[..., : values.shape[-1]] = values
    return wide[..., : values.shape[-1]]


def transposed(values: torch.Tensor) -> torch.Tensor:
    """Return the same values in column-major order."""
    return values.t().contiguous().t()


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
