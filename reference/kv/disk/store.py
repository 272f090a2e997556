"""KV pages on disk: one checksummed file a page, and an index that says which of them count.

A page is stored in the order temporary file → write → fsync → rename → fsync of the folder → commit of the index, so a
crash at any point leaves it stored with its exact bytes, or not stored. It is deleted in the order commit → unlink.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import overload

from gaugeblock.reference.kv.disk.errors import StoreUnwritable
from gaugeblock.reference.kv.disk.files import PAGE, TEMPORARY, read_page, write_page
from gaugeblock.reference.kv.disk.folder import PAGES, claim, open_index
from gaugeblock.reference.kv.disk.io import FileIO
from gaugeblock.reference.kv.disk.lock import FolderLock
from gaugeblock.reference.kv.disk.page import HEADER, PageDamaged, PageData, StoredPage, header_of, identity_digest

__all__ = ["DiskStore", "PageData", "StoredPage"]
IN_FLIGHT = 64  # page files that the disk may work on while the next one is copied


class DiskStore:
    """A folder of pages that outlives the process. Usable from several threads; how much it holds is its user's choice.

    ``identity`` names everything that a page's bytes depend on besides its tokens: model revision, dtype, layout, ….

    ``damaged`` counts files that were not the page they should be (removed, and a miss), ``bytes_written`` and
    ``bytes_read`` payload.

    Raises:
        StoreBusy: another process has the folder.
        StoreMismatch: the folder is another identity's or version's, or no store; nothing was changed.
        StoreUnwritable: the folder cannot be made or written to.
    """

    def __init__(self, folder: Path, identity: str, *, io: FileIO | None = None) -> None:
        self._io = io = io or FileIO()
        self._pages = folder / PAGES
        self._digest = identity_digest(identity)
        self._writing = threading.Lock()
        self._counting = threading.Lock()
        self.damaged = self.bytes_written = self.bytes_read = 0
        try:
            io.make_dir(folder)
            self._lock = FolderLock(folder, io)
            try:
                claim(folder, identity, io)
                self._index, self.damaged = open_index(folder, identity, io)
            except BaseException:
                self._lock.release()
                raise
        except OSError as error:
            raise StoreUnwritable(
                f"{folder} cannot hold KV pages: {error}. Name a folder that this process may create and write to, on "
                "a disk with room"
            ) from error

    def entries(self) -> list[StoredPage]:
        """Return all pages in the order in which they were stored."""
        return self._index.entries()

    def put(self, pages: Sequence[PageData]) -> None:
        """Store a batch, all or none; it is on the disk when this returns.

        A page that is stored already stays as it is: a key names its bytes. Folder and index are synchronised once.

        Raises:
            OSError: full disk, read or write error; then none of the batch is stored.
            ValueError: a key is empty or longer than 64 bytes.
        """
        with self._writing:
            batch = {page.key: page for page in pages if not self._has(page.key)}
            if not batch:
                return
            headers = {key: header_of(page.stored, self._digest, page.data) for key, page in batch.items()}
            try:
                self._write(batch, headers)
                for key in batch:
                    self._io.rename(self._path(key, TEMPORARY), self._path(key))
                self._io.fsync_dir(self._pages)
                self._index.add(page.stored for page in batch.values())
            except BaseException:
                self._unlink(batch)
                raise
            self.bytes_written += sum(memoryview(page.data).nbytes for page in batch.values())

    @overload
    def get(self, key: bytes) -> bytes | None: ...
    @overload
    def get(self, key: bytes, into: memoryview) -> memoryview | None: ...
    @overload
    def get(self, key: bytes, into: memoryview | None) -> bytes | memoryview | None: ...
    def get(self, key: bytes, into: memoryview | None = None) -> bytes | memoryview | None:
        """Return the payload of a page, or None; read into ``into`` (bytes), the part that it fills is returned.

        A file that is not that page is removed and counted as damaged, and the answer is None.

        Raises:
            OSError: the read failed; the page may be good and stays.
            ValueError: ``into`` is smaller than the page.
        """
        found = self._index.find(key)
        if found is None:
            return None
        seq, page = found
        try:
            payload = read_page(self._io, self._path(key), self._digest, page, into)
        except (PageDamaged, FileNotFoundError):
            self._remove_damaged(key, seq)
            return None
        with self._counting:
            self.bytes_read += page.size
        return payload

    def delete(self, keys: Sequence[bytes]) -> None:
        """Remove pages; those that are not stored are none to remove.

        Raises:
            OSError: the index could not be written; then none is removed.
        """
        with self._writing:
            self._index.remove(keys)
            self._unlink(keys)

    def close(self) -> None:
        """Let go of the folder. Nothing is left to be written."""
        with self._writing:
            try:
                self._index.close()
            finally:
                self._lock.release()

    def _has(self, key: bytes) -> bool:
        found = self._index.find(key)
        if found is None:
            return False
        try:
            return self._io.size(self._path(key)) == HEADER + found[1].size
        except FileNotFoundError:
            return False

    def _write(self, batch: dict[bytes, PageData], headers: dict[bytes, bytes]) -> None:
        open_files: list[int] = []
        try:
            for key, page in batch.items():
                if len(open_files) == IN_FLIGHT:
                    self._seal(open_files)
                open_files.append(write_page(self._io, self._path(key, TEMPORARY), headers[key], page.data))
            self._seal(open_files)
        finally:
            for fd in open_files:
                self._io.close(fd)

    def _seal(self, open_files: list[int]) -> None:
        for fd in open_files:
            self._io.wait_writeback(fd)
        if open_files:
            self._io.fsync_all(open_files)
        while open_files:
            self._io.close(open_files.pop())

    def _remove_damaged(self, key: bytes, seq: int) -> None:
        """Forget a page unless it was deleted or stored anew since it was looked up; failing at that it is a miss."""
        with self._writing, suppress(OSError):
            if self._index.remove_one(key, seq):
                self.damaged += 1
                self._unlink([key])

    def _unlink(self, keys: Iterable[bytes]) -> None:
        """Remove what there is of the files of some pages; what cannot be removed goes when the store is opened."""
        for key in keys:
            for suffix in (TEMPORARY, PAGE):
                with suppress(OSError):
                    self._io.unlink(self._path(key, suffix))

    def _path(self, key: bytes, suffix: str = PAGE) -> Path:
        return self._pages / (key.hex() + suffix)
