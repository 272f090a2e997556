"""Page files: writing one so that it can be made durable later, reading one so that only its own bytes come back."""

from __future__ import annotations

import os
from collections.abc import Callable
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


def read_page(
    io: FileIO, path: Path, digest: bytes, expected: StoredPage | None = None, into: memoryview | None = None
) -> tuple[StoredPage, bytes | memoryview]:
    """Return a page and its payload: new bytes, or the part of ``into`` that they fill.

    Raises:
        PageDamaged: the file is not that page of that identity, byte for byte.
        OSError: as the system says; that tells nothing about the page.
        ValueError: ``into`` is smaller than the page.
    """
    fd = io.open(path, os.O_RDONLY)
    try:
        size = io.size(fd)
        header = _read(lambda count: io.read(fd, count), HEADER)
        page = parse(header, digest)
        if expected is not None and page != expected:
            raise PageDamaged(f"it holds page {page}, the index says {expected}")
        if size != HEADER + page.size:
            raise PageDamaged(f"the file has {size} bytes, a page of {page.size} has {HEADER + page.size}")
        payload: bytes | memoryview
        if into is None:
            payload = _read(lambda count: io.read(fd, count), page.size)
        else:
            payload = _read_into(lambda view: io.read_into(fd, view), into, page.size)
    finally:
        io.close(fd)
    if len(payload) != page.size:
        raise PageDamaged(f"the file ended after {len(payload)} bytes of a payload of {page.size}")
    verify(header, payload)
    return page, payload


def _read(read: Callable[[int], bytes], count: int) -> bytes:
    data = read(count)
    if len(data) in (0, count):  # one call reads a page in one piece, without another copy
        return data
    parts = [data]
    while count > (got := sum(map(len, parts))):
        parts.append(read(count - got))
        if not parts[-1]:
            break
    return b"".join(parts)


def _read_into(read: Callable[[memoryview], int], into: memoryview, count: int) -> memoryview:
    if len(into) < count:
        raise ValueError(f"a buffer of {len(into)} bytes for a page of {count}")
    done = 0
    while done < count and (got := read(into[done:count])):
        done += got
    return into[:done]
