"""Where KV that left the hot window lies until it is streamed back: host memory, or files in a folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from gaugeblock.reference.engine.errors import PrefillError

Run = tuple[int, int]
"""Positions of consecutive tokens: from the first to behind the last."""


class ColdTier(Protocol):
    """Holds runs of tokens, layer by layer. A token's row is [2, kv_heads, head_dim]: K and V."""

    blocking: bool
    """Whether calls wait for files, so that only a thread of their own overlaps them."""

    def store(self, layer: int, start: int, rows: Tensor) -> None:
        """Keep ``rows`` [tokens, 2, kv_heads, head_dim] of the tokens from position ``start`` on."""

    def load(self, layer: int, runs: list[Run], into: Tensor) -> None:
        """Copy runs that were stored as such, one behind the other, to ``into``."""

    def close(self) -> None:
        """Forget everything."""


class HostTier:
    """Host memory, pinned for a CUDA device, in slabs of many tokens: one a layer when the prompt's length is known.

    ``first`` and ``more``: tokens of a layer's first slab, and of each one after it.
    """

    blocking = False

    def __init__(self, device: torch.device, first: int, more: int) -> None:
        self.pinned = device.type == "cuda"
        self._sizes = (max(1, first), max(1, more))
        self._slabs: dict[int, list[tuple[int, Tensor]]] = {}  # by layer: (position of the first row, rows)

    def store(self, layer: int, start: int, rows: Tensor) -> None:
        """Copy to host memory; on a GPU in the current stream."""
        done = 0
        while done < len(rows):
            first, slab = self._slab(layer, start + done, rows)
            begin = start + done - first
            count = min(len(rows) - done, len(slab) - begin)
            slab[begin : begin + count].copy_(rows[done : done + count], non_blocking=self.pinned)
            done += count

    def load(self, layer: int, runs: list[Run], into: Tensor) -> None:
        """Copy to the device; on a GPU in the current stream."""
        start, stop = runs[0][0], runs[-1][1]
        for first, slab in self._slabs[layer]:
            begin, end = max(start, first), min(stop, first + len(slab))
            if begin < end:
                rows = slab.narrow(0, begin - first, end - begin)
                into.narrow(0, begin - start, end - begin).copy_(rows, non_blocking=self.pinned)

    def close(self) -> None:
        """Give the memory back."""
        self._slabs.clear()

    def _slab(self, layer: int, position: int, like: Tensor) -> tuple[int, Tensor]:
        """The slab in which a position lies, made if it is the next one."""
        slabs = self._slabs.setdefault(layer, [])
        for first, slab in slabs:
            if position < first + len(slab):
                return first, slab
        size = self._sizes[bool(slabs)]
        with torch.inference_mode(False):
            rows = torch.empty((size, *like.shape[1:]), dtype=like.dtype, device="cpu", pin_memory=self.pinned)
        slabs.append((position, rows))
        return slabs[-1]


def open_tier(offload: Any, device: torch.device, first: int, more: int) -> ColdTier:
    """Return the tier that ``offload`` names: ``"host"``, a folder, a disk store, or a tier of the caller's own.

    Raises:
        PrefillError: none of them, or a folder that cannot be written.
    """
    from gaugeblock.reference.engine._streamed_disk import FolderTier, StoreTier

    if offload == "host":
        return HostTier(device, first, more)
    if isinstance(offload, (str, os.PathLike)):
        if not str(offload):
            raise PrefillError("offload='': give 'host' or the path of a folder")
        return FolderTier(Path(offload), device)
    if all(callable(getattr(offload, name, None)) for name in ("put", "get", "delete")):
        return StoreTier(offload, device)
    if not all(callable(getattr(offload, name, None)) for name in ("store", "load", "close")):
        raise PrefillError(
            f"offload={offload!r}: give 'host', the path of a folder, a DiskStore, or an object with store, load, close"
        )
    tier: ColdTier = offload
    return tier
