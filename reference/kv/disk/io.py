"""Every system call of the disk store, in one class: what a test replaces to inject errors and crashes."""

from __future__ import annotations

import ctypes
import fcntl
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from gaugeblock.reference.kv.workers import Workers

SYNC_THREADS = 8
SYNC_WAIT_BEFORE, SYNC_WRITE, SYNC_WAIT_AFTER = 1, 2, 4  # man 2 sync_file_range
_libc = ctypes.CDLL(None)
Buffer = bytes | bytearray | memoryview


class FileIO:
    """Plain Linux calls. Each raises :class:`OSError` as the system does; reads and writes may be short."""

    def make_dir(self, path: Path) -> None:
        """Create a folder, for this user alone, and those above it; one that exists is fine."""
        path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def open(self, path: Path, flags: int) -> int:
        """Open a file and return its descriptor; a new one is readable by its owner alone (KV tells the prompt)."""
        return os.open(path, flags | os.O_CLOEXEC, 0o600)

    def close(self, fd: int) -> None:
        """Close a descriptor."""
        os.close(fd)

    def write(self, fd: int, buffers: Sequence[Buffer]) -> int:
        """Write some bytes of the buffers, in order, and return how many."""
        return os.writev(fd, buffers)

    def start_writeback(self, fd: int) -> None:
        """Let the disk begin with what was written, without waiting: the next page is copied meanwhile. Advice only."""
        _sync_file_range(fd, SYNC_WRITE)

    def wait_writeback(self, fd: int) -> None:
        """Wait until the disk has taken what was written. This promises nothing, but it makes :meth:`fsync` cheap.

        The journal of ext4 takes a file up once its blocks are written. When all files of a batch are waited for before
        the first ``fsync``, that one commits the journal for all of them; else each may have to.
        """
        _sync_file_range(fd, SYNC_WAIT_BEFORE | SYNC_WRITE | SYNC_WAIT_AFTER)

    def read(self, fd: int, count: int) -> bytes:
        """Read up to ``count`` bytes; none at the end of the file."""
        return os.read(fd, count)

    def read_into(self, fd: int, buffer: memoryview) -> int:
        """Read into a buffer and return how many bytes came; 0 at the end of the file."""
        return os.readv(fd, [buffer])

    def size(self, file: int | Path) -> int:
        """Return the size of a file, by descriptor or by name, in bytes."""
        return os.stat(file).st_size  # noqa: PTH116 # a Path cannot stat a descriptor

    def fsync(self, fd: int) -> None:
        """Wait until the bytes of a file are on the disk."""
        os.fsync(fd)

    def fsync_all(self, fds: Sequence[int]) -> None:
        """:meth:`fsync` several files at once: each waits for the disk, and one commit of the journal serves many.

        Raises the first error, after all have ended.
        """
        if len(fds) == 1:
            self.fsync(fds[0])
            return
        threads = Workers(min(SYNC_THREADS, len(fds)), "kv-fsync")
        synced = [threads.submit(self.fsync, fd) for fd in fds]
        threads.shutdown()
        for future in synced:
            future.result()

    def fsync_dir(self, path: Path) -> None:
        """Wait until the names in a folder are on the disk."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def rename(self, source: Path, target: Path) -> None:
        """Give a file its name, in place of any other file of that name."""
        source.rename(target)

    def unlink(self, path: Path) -> None:
        """Remove a file."""
        path.unlink()

    def listdir(self, path: Path) -> list[str]:
        """Return the names in a folder."""
        return os.listdir(path)  # noqa: PTH208 # names alone: a million Path objects would cost seconds

    def lock(self, fd: int) -> None:
        """Take the exclusive lock of an open file or raise :class:`BlockingIOError`. It ends with the process."""
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def commit(self, connection: sqlite3.Connection) -> None:
        """Commit the index; on the disk when it returns (``synchronous=FULL``)."""
        connection.commit()


def _sync_file_range(fd: int, flags: int) -> None:
    call = getattr(_libc, "sync_file_range", None)  # Linux alone has it; what fails here fails again in fsync
    if call is not None:
        call(ctypes.c_int(fd), ctypes.c_int64(0), ctypes.c_int64(0), ctypes.c_uint(flags))
