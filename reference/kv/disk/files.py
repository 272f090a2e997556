"""Page files: writing one so that it can be made durable later, reading one so that only its own bytes come back."""

from __future__ import annotations

import os
from pathlib import Path

from gaugeblock.reference.kv.disk.io import Buffer, FileIO
from gaugeblock.reference.kv.disk.page import HEADER, PageDamaged, StoredPage, parse, verify

PAGE = ".page"
TEMPORARY = ".tmp"


def write_page(io: FileIO, path: Path, header: bytes, payload: Buffer) -> int:
    """Write a new file and let the disk begin with it; return the open descriptor, to be synchronised.

    Raises:
        OSError: as the system says; then the descriptor is closed and the file is left for the caller to remove.
    """
    fd = io.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        buffers = [memoryview(header), memoryview(payload)]
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
    """Return the payload of a page: new bytes, or the part of ``into`` that it fills. Nothing is copied twice.

    Header and payload are read apart: in one call the kernel reads ahead less.

    Raises:
        PageDamaged: the file is not that page of that identity, byte for byte.
        OSError: as the system says; that tells nothing about the page.
        ValueError: ``into`` is smaller than the page.
    """
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
        payload = _read(io, fd, page.size) if into is None else _read_into(io, fd, into[: page.size])
    finally:
        io.close(fd)
    if len(payload) != page.size:
        raise PageDamaged(f"the file ended after {len(payload)} bytes of a payload of {page.size}")
    verify(header, payload)
    return payload


def _read(io: FileIO, fd: int, count: int) -> bytes:
    data = io.read(fd, count)
    if len(data) in (0, count):  # the usual case, without another copy
        return data
    parts = [data]
    while (left := count - sum(map(len, parts))) and (more := io.read(fd, left)):
        parts.append(more)
    return b"".join(parts)


def _read_into(io: FileIO, fd: int, buffer: memoryview) -> memoryview:
    done = 0
    while done < len(buffer) and (got := io.read_into(fd, buffer[done:])):
        done += got
    return buffer[:done]
