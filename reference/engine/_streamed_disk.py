"""KV on a disk between two chunks: in scratch files of the call, or in a ``DiskStore`` of the KV manager."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
import weakref
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from gaugeblock.reference.engine._streamed_tiers import Run
from gaugeblock.reference.engine.errors import PrefillError


class _DiskTier(ABC):
    """Bytes of runs by layer and first position; beside a CUDA device they pass through pinned memory."""

    blocking = True

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._bounce = torch.empty(0, dtype=torch.uint8, device="cpu")

    @abstractmethod
    def _write(self, layer: int, start: int, data: memoryview, row: int) -> None:
        """Keep the bytes of a run, ``row`` of them a token."""

    @abstractmethod
    def _read(self, layer: int, start: int, into: memoryview, row: int) -> bool:
        """Read a run; say whether it is what was written."""

    def store(self, layer: int, start: int, rows: Tensor) -> None:
        """Write a run."""
        try:
            self._write(layer, start, self._on_host(rows), rows[0].nbytes)
        except OSError as error:
            raise PrefillError(f"cannot write KV to {self}: {error.strerror}") from error

    def load(self, layer: int, runs: list[Run], into: Tensor) -> None:
        """Read runs; a damaged one is an error, never data."""
        first, row = runs[0][0], into[0].nbytes
        flat = into.view(torch.uint8).flatten()
        target = self._room(into.nbytes) if self._cuda else flat
        data = _bytes_of(target)
        for start, stop in runs:
            try:
                good = self._read(layer, start, data[(start - first) * row : (stop - first) * row], row)
            except OSError as error:
                raise PrefillError(f"cannot read KV from {self}: {error.strerror}") from error
            if not good:
                raise PrefillError(
                    f"KV of layer {layer}, tokens {start} to {stop}, is damaged in {self}: prefill again"
                )
        if self._cuda:
            flat.copy_(target, non_blocking=True)
            torch.cuda.current_stream(into.device).synchronize()  # the next load overwrites the pinned memory

    def _on_host(self, rows: Tensor) -> memoryview:
        flat = rows.view(torch.uint8).flatten()
        if not self._cuda:
            return _bytes_of(flat)
        room = self._room(rows.nbytes)
        room.copy_(flat, non_blocking=True)
        torch.cuda.current_stream(rows.device).synchronize()
        return _bytes_of(room)

    def _room(self, size: int) -> Tensor:
        """Pinned memory of so many bytes; the next call gives the same."""
        if self._bounce.nbytes < size:
            with torch.inference_mode(False):
                self._bounce = torch.empty(size, dtype=torch.uint8, device="cpu", pin_memory=True)
        return self._bounce[:size]


class FolderTier(_DiskTier):
    """A file a layer in a folder of its own, which goes when the tier is closed. Every run has a checksum.

    Nothing is synchronised: the files are of no use after the process. Several threads may not use it at once.

    Raises:
        PrefillError: the folder cannot be made or written.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        super().__init__(device)
        from xxhash import xxh3_64_intdigest

        self._digest = xxh3_64_intdigest
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.folder = Path(tempfile.mkdtemp(prefix="chunked-prefill-", dir=folder))
        except OSError as error:
            raise PrefillError(
                f"offload={str(folder)!r} cannot be written: {error.strerror}; give a folder that can, or 'host'"
            ) from error
        self._files: dict[int, int] = {}
        self._sums: dict[tuple[int, int], int] = {}
        self._end = weakref.finalize(self, _remove, self._files, self.folder)

    def __str__(self) -> str:
        return str(self.folder)

    def _write(self, layer: int, start: int, data: memoryview, row: int) -> None:
        self._sums[layer, start] = self._digest(data)
        offset = start * row
        while data:
            written = os.pwrite(self._file(layer), data, offset)
            data, offset = data[written:], offset + written

    def _read(self, layer: int, start: int, into: memoryview, row: int) -> bool:
        read = os.preadv(self._file(layer), [into], start * row)
        return read == into.nbytes and self._digest(into) == self._sums[layer, start]

    def close(self) -> None:
        """Delete the files."""
        self._end()

    def _file(self, layer: int) -> int:
        if layer not in self._files:
            self._files[layer] = os.open(self.folder / f"layer-{layer:04}.kv", os.O_RDWR | os.O_CREAT, 0o600)
        return self._files[layer]


class PageStore(Protocol):
    """What is needed of a ``DiskStore``."""

    def put(self, pages: Sequence[Any]) -> None:
        """Store pages with ``key``, ``parent`` and ``data``."""

    def get(self, key: bytes, into: memoryview) -> memoryview | None:
        """Read a page; None when it is gone or damaged."""

    def delete(self, keys: Sequence[bytes]) -> None:
        """Remove pages."""


class StoreTier(_DiskTier):
    """Runs as pages of a ``DiskStore``, whose owner closes it; each one is durable, which costs a write its time."""

    def __init__(self, store: PageStore, device: torch.device) -> None:
        super().__init__(device)
        self._store = store
        self._call = secrets.token_bytes(16)  # no other call's pages are ever read
        self._keys: list[bytes] = []

    def __str__(self) -> str:
        return "the disk store"

    def _write(self, layer: int, start: int, data: memoryview, row: int) -> None:
        from gaugeblock.reference.kv.disk.store import PageData

        key = self._key(layer, start)
        self._store.put([PageData(key, b"", data)])
        self._keys.append(key)

    def _read(self, layer: int, start: int, into: memoryview, row: int) -> bool:
        got = self._store.get(self._key(layer, start), into)
        return got is not None and len(got) == len(into)

    def close(self) -> None:
        """Delete this call's pages."""
        keys, self._keys = self._keys, []
        self._store.delete(keys)

    def _key(self, layer: int, start: int) -> bytes:
        return b"chunked-prefill" + self._call + layer.to_bytes(4, "big") + start.to_bytes(8, "big")


def _bytes_of(flat: Tensor) -> memoryview:
    return memoryview(flat.numpy())  # type: ignore[arg-type] # an ndarray has the buffer protocol


def _remove(files: dict[int, int], folder: Path) -> None:
    for file in files.values():
        os.close(file)
    files.clear()
    shutil.rmtree(folder, ignore_errors=True)
