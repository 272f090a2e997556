"""Page files: writing one so that it can be made durable later, reading one so that only its own bytes come back."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import threading
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
        header = b""
        while len(header) < HEADER and (more := io.read(fd, HEADER - len(header))):
            header += more
    finally:
        io.close(fd)
    return parse(header, digest)


def read_page(
    io: FileIO, path: Path, digest: bytes, expected: StoredPage, into: memoryview | None = None
) -> bytes | memoryview:
    """Return the payload of a page: new bytes, or the part of ``into`` that it fills.

    Nothing is copied when ``into`` and the page's size are multiples of 4096 (as in pinned memory); else it is once.

    Raises:
        PageDamaged: the file is not that page of that identity, byte for byte.
        OSError: as the system says; that tells nothing about the page.
        ValueError: ``into`` is smaller than the page.
    """
    if into is not None and len(into) < expected.size:
        raise ValueError(f"a buffer of {len(into)} bytes for a page of {expected.size}")
    wanted = HEADER + expected.size
    fd = io.open_direct(path)
    try:
        size = io.size(fd)
        if size != wanted:
            raise PageDamaged(f"the file has {size} bytes, a page of {expected.size} has {wanted}")
        room = _room(wanted)
        straight = into is not None and _is_aligned(into, expected.size)
        payload = into[: expected.size] if into is not None and straight else room[HEADER:wanted]
        got = _fill(io, fd, [room[:HEADER], payload] if straight else [room[: _blocks(wanted)]], wanted)
    finally:
        io.close(fd)
    if got != wanted:
        raise PageDamaged(f"the file ended after {got} bytes of {wanted}")
    header = bytes(room[:HEADER])
    page = parse(header, digest)
    if page != expected:
        raise PageDamaged(f"it holds page {page}, the index says {expected}")
    verify(header, payload)
    if into is None:
        return bytes(payload)
    if not straight:
        into[: expected.size] = payload
    return into[: expected.size]


def _fill(io: FileIO, fd: int, buffers: list[memoryview], wanted: int) -> int:
    if io.is_cached(fd, wanted):
        io.buffered(fd)
    done = 0
    try:
        done = io.read_into(fd, buffers)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a disk with larger blocks than HEADER
            raise
        io.buffered(fd)
    while done < wanted:
        io.buffered(fd)  # what is left does not begin at a block
        got = io.read_into(fd, _after(buffers, done))
        if not got:
            break
        done += got
    return min(done, wanted)


def _after(buffers: list[memoryview], done: int) -> list[memoryview]:
    rest = []
    for buffer in buffers:
        rest.append(buffer[min(done, len(buffer)) :])
        done -= min(done, len(buffer))
    return [buffer for buffer in rest if len(buffer)]


def _blocks(size: int) -> int:
    return -(-size // HEADER) * HEADER


def _is_aligned(into: memoryview, size: int) -> bool:
    return size % HEADER == 0 and size > 0 and ctypes.addressof(ctypes.c_char.from_buffer(into)) % HEADER == 0


_threads = threading.local()


def _room(size: int) -> memoryview:
    """Return memory of this thread's own that begins at a block; what it held is overwritten by the next read."""
    room: memoryview | None = getattr(_threads, "room", None)
    if room is None or len(room) < size:
        room = _threads.room = memoryview(mmap.mmap(-1, _blocks(size)))
    return room
