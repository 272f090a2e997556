"""Page files: writing one so that it can be made durable later, reading one so that only its own bytes come back."""

from __future__ import annotations

import os
from pathlib import Path

import xxhash

from gaugeblock.reference.kv.disk.io import Buffer, FileIO
from gaugeblock.reference.kv.disk.page import FIELDS, HEADER, PageDamaged, StoredPage, hasher_of, parse, verify

PAGE = ".page"
TEMPORARY = ".tmp"
PIECE = 256 * 1024  # bytes


def write_page(io: FileIO, path: Path, header: bytes, payload: Buffer) -> int:
    """Write a new file and let the disk begin with it; return the open descriptor, to be synchronised.

    Raises:
        OSError: as the system says; then the descriptor is closed and the file is left for the caller to remove.
    """
    fd = io.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        buffers = [memoryview(header), memoryview(payload).cast("B")]
        while buffers:
            written = io.write(fd, buffers)
            while buffers and written >= len(buffers[0]):
                written -= len(buffers.pop(0))
            if buffers:
                buffers[0] = buffers[0][written:]
        io.start_writeback(fd)
    except BaseException:
        io.close(fd)
        raise
    return fd


def peek(io: FileIO, path: Path, digest: bytes) -> StoredPage:
    """Return what a file's header says, the payload not yet read.

    Raises:
        PageDamaged: it is not the header of a page of that identity.
        OSError: as the system says.
    """
    fd = io.open(path, os.O_RDONLY)
    try:
        return parse(_read(io, fd, HEADER), digest)
    finally:
        io.close(fd)


def read_page(
    io: FileIO, path: Path, digest: bytes, expected: StoredPage, into: memoryview | None = None
) -> bytes | memoryview:
    """Return the payload of a page: new bytes, or the part of ``into`` that it fills. With ``into`` nothing is copied.

    The payload is read in pieces that stay in the processor's cache, and its checksum grows while the disk reads ahead.

    Raises:
        PageDamaged: the file is not that page of that identity, byte for byte.
        OSError: as the system says; that tells nothing about the page.
        ValueError: ``into`` is smaller than the page.
    """
    into = None if into is None else into.cast("B")
    if into is not None and len(into) < expected.size:
        raise ValueError(f"a buffer of {len(into)} bytes for a page of {expected.size}")
    fd = io.open(path, os.O_RDONLY)
    try:
        size, wanted = io.size(fd), HEADER + expected.size
        if size != wanted:
            raise PageDamaged(f"the file has {size} bytes, a page of {expected.size} has {wanted}")
        header = _read(io, fd, HEADER)
        page = parse(header, digest)
        if page != expected:
            raise PageDamaged(f"it holds page {page}, the index says {expected}")
        hasher = hasher_of(header[: FIELDS.size])
        payload = _read(io, fd, page.size, hasher) if into is None else _read_into(io, fd, into[: page.size], hasher)
    finally:
        io.close(fd)
    if len(payload) != page.size:
        raise PageDamaged(f"the file ended after {len(payload)} bytes of a payload of {page.size}")
    verify(header, hasher)
    return payload


def _read(io: FileIO, fd: int, count: int, hasher: xxhash.xxh3_128 | None = None) -> bytes:
    parts: list[bytes] = []
    left = count
    while left and (part := io.read(fd, min(left, PIECE))):
        if hasher is not None:
            hasher.update(part)
        parts.append(part)
        left -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _read_into(io: FileIO, fd: int, buffer: memoryview, hasher: xxhash.xxh3_128) -> memoryview:
    done = 0
    while done < len(buffer) and (got := io.read_into(fd, buffer[done : done + PIECE])):
        hasher.update(buffer[done : done + got])
        done += got
    return buffer[:done]
