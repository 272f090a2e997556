"""Where KV that left the hot window lies until it is streamed back: host memory, or files in a folder."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
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
                rows = slab[begin - first : end - first]
                into[begin - start : end - start].copy_(rows, non_blocking=self.pinned)

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
            rows = torch.empty((size, *like.shape[1:]), dtype=like.dtype, pin_memory=self.pinned)
        slabs.append((position, rows))
        return slabs[-1]


class DiskTier:
    """A file a layer in a folder of its own, which goes when the tier is closed. Every run has a checksum.

    Raises:
        PrefillError: the folder cannot be made or written.
    """

    blocking = True

    def __init__(self, folder: Path, device: torch.device) -> None:
        from xxhash import xxh3_64_intdigest

        self._digest = xxh3_64_intdigest
        self._cuda = device.type == "cuda"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.folder = Path(tempfile.mkdtemp(prefix="chunked-prefill-", dir=folder))
        except OSError as error:
            raise PrefillError(
                f"offload={str(folder)!r} cannot be written: {error.strerror}; give a folder that can, or 'host'"
            ) from error
        self._files: dict[int, int] = {}
        self._sums: dict[tuple[int, int], int] = {}
        self._bounce = torch.empty(0, dtype=torch.uint8)
        self._end = weakref.finalize(self, _remove, self._files, self.folder)

    def store(self, layer: int, start: int, rows: Tensor) -> None:
        """Write a run, and remember its checksum."""
        data = self._on_host(rows)
        self._sums[layer, start] = self._digest(data)
        try:
            _write(self._file(layer), data, start * data.nbytes // len(rows))
        except OSError as error:
            raise PrefillError(f"cannot write KV to {self.folder}: {error.strerror}") from error

    def load(self, layer: int, runs: list[Run], into: Tensor) -> None:
        """Read runs; a damaged one is an error, never data."""
        start, row = runs[0][0], into[0].nbytes
        target = self._room(into) if self._cuda else into.view(torch.uint8).flatten()
        data = memoryview(target.numpy())  # type: ignore[arg-type] # an ndarray has the buffer protocol
        for begin, end in runs:
            part = data[(begin - start) * row : (end - start) * row]
            try:
                read = os.preadv(self._file(layer), [part], begin * row)
            except OSError as error:
                raise PrefillError(f"cannot read KV from {self.folder}: {error.strerror}") from error
            if read != part.nbytes or self._digest(part) != self._sums[layer, begin]:
                raise PrefillError(
                    f"KV of layer {layer}, tokens {begin} to {end}, is damaged in {self.folder}: prefill again"
                )
        if self._cuda:
            into.view(torch.uint8).flatten().copy_(target, non_blocking=True)
            torch.cuda.current_stream(into.device).synchronize()  # the next load overwrites the pinned memory

    def close(self) -> None:
        """Delete the files."""
        self._end()

    def _file(self, layer: int) -> int:
        if layer not in self._files:
            self._files[layer] = os.open(self.folder / f"layer-{layer:04}.kv", os.O_RDWR | os.O_CREAT, 0o600)
        return self._files[layer]

    def _on_host(self, rows: Tensor) -> Any:
        flat = rows.contiguous().view(torch.uint8).flatten()
        if self._cuda:
            room = self._room(rows)
            room.copy_(flat, non_blocking=True)
            torch.cuda.current_stream(rows.device).synchronize()
            flat = room
        return memoryview(flat.numpy())  # type: ignore[arg-type] # an ndarray has the buffer protocol

    def _room(self, rows: Tensor) -> Tensor:
        """Pinned memory for as many bytes as ``rows`` has."""
        if self._bounce.nbytes < rows.nbytes:
            with torch.inference_mode(False):
                self._bounce = torch.empty(rows.nbytes, dtype=torch.uint8, pin_memory=True)
        return self._bounce[: rows.nbytes]


def _write(file: int, data: Any, offset: int) -> None:
    while data:
        written = os.pwrite(file, data, offset)
        data, offset = data[written:], offset + written


def _remove(files: dict[int, int], folder: Path) -> None:
    for file in files.values():
        os.close(file)
    files.clear()
    shutil.rmtree(folder, ignore_errors=True)


def open_tier(offload: str | os.PathLike[str] | ColdTier, device: torch.device, first: int, more: int) -> ColdTier:
    """Return the tier that ``offload`` names: ``"host"``, a folder, or a tier of the caller's own.

    Raises:
        PrefillError: none of them, or a folder that cannot be written.
    """
    if offload == "host":
        return HostTier(device, first, more)
    if isinstance(offload, (str, os.PathLike)):
        if not str(offload):
            raise PrefillError("offload='': give 'host' or the path of a folder")
        return DiskTier(Path(offload), device)
    if not all(callable(getattr(offload, name, None)) for name in ("store", "load", "close")):
        raise PrefillError(
            f"offload={offload!r}: give 'host', the path of a folder, or an object with store, load and close"
        )
    return offload
