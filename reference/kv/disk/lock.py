"""One process a folder: an advisory lock that the system drops with its holder, however that ends."""

from __future__ import annotations

import os
from pathlib import Path

from gaugeblock.reference.kv.disk.errors import StoreBusy
from gaugeblock.reference.kv.disk.io import FileIO

NAME = "lock"
WIDTH = 20  # digits: overwriting in place leaves nothing of a longer number


class FolderLock:
    """Holds ``folder/lock`` from construction to :meth:`release`; the file names the holder and stays."""

    def __init__(self, folder: Path, io: FileIO) -> None:
        self._io = io
        self._fd = io.open(folder / NAME, os.O_RDWR | os.O_CREAT)
        try:
            self._take(folder)
        except BaseException:
            io.close(self._fd)
            raise

    def _take(self, folder: Path) -> None:
        try:
            self._io.lock(self._fd)
        except BlockingIOError:
            holder = self._io.read(self._fd, WIDTH).decode(errors="replace").strip()
            raise StoreBusy(
                f"{folder} is in use by process {holder or 'unknown'}: end that process, or give this one a folder of "
                "its own"
            ) from None
        self._io.write(self._fd, [f"{os.getpid():<{WIDTH}}".encode()])
        self._io.fsync(self._fd)

    def release(self) -> None:
        """Let go."""
        self._io.close(self._fd)
