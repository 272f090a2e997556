"""Which pages the store has: one SQLite table, in WAL mode, synchronised at every commit."""

from __future__ import annotations

import errno
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from gaugeblock.reference.kv.disk.io import FileIO
from gaugeblock.reference.kv.disk.page import StoredPage

NAME = "index.sqlite"
PRIMARY = 0xFF  # SQLite's extended error codes keep the primary one in their low byte
BROKEN = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
# AUTOINCREMENT: a number never comes back, so (key, seq) names one store of one page for good.
SCHEMA = """
CREATE TABLE IF NOT EXISTS pages (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    key BLOB NOT NULL UNIQUE,
    parent BLOB NOT NULL,
    size INTEGER NOT NULL,
    owner TEXT NOT NULL DEFAULT ''
)"""
OWNED = "ALTER TABLE pages ADD COLUMN owner TEXT NOT NULL DEFAULT ''"  # a folder from before pages had owners


class IndexBroken(OSError):
    """The index file is not a database, or is damaged."""


class Index:
    """The table, usable from several threads; a change is on the disk when its call returns.

    SQLite's own errors come as :class:`OSError` (``ENOSPC`` when the disk is full, else ``EIO``), and then nothing has
    changed.
    """

    def __init__(self, folder: Path, io: FileIO) -> None:
        self._io = io
        self._lock = threading.Lock()
        with _as_os_errors():
            self._connection = sqlite3.connect(folder / NAME, isolation_level=None, check_same_thread=False)
        try:
            with _as_os_errors():
                self._connection.execute("PRAGMA journal_mode = WAL")
                self._connection.execute("PRAGMA synchronous = FULL")  # a commit is on the disk, not only in order
                self._connection.execute(SCHEMA)
                if "owner" not in {row[1] for row in self._connection.execute("PRAGMA table_info(pages)")}:
                    self._connection.execute(OWNED)
        except BaseException:
            self._connection.close()
            raise

    def find(self, key: bytes) -> tuple[int, StoredPage] | None:
        """Return a page with its number, or None."""
        with self._lock, _as_os_errors():
            row = self._connection.execute(
                "SELECT seq, parent, size, owner FROM pages WHERE key = ?", (key,)
            ).fetchone()
        return None if row is None else (row[0], StoredPage(key, *row[1:]))

    def entries(self) -> list[StoredPage]:
        """Return all pages in the order in which they were committed."""
        with self._lock, _as_os_errors():
            rows = self._connection.execute("SELECT key, parent, size, owner FROM pages ORDER BY seq").fetchall()
        return [StoredPage(*row) for row in rows]

    @property
    def complete(self) -> bool:
        """Whether the pages that were in the folder when the index was made are entered."""
        with self._lock, _as_os_errors():
            return bool(self._connection.execute("PRAGMA user_version").fetchone()[0])

    def add(self, pages: Iterable[StoredPage], *, complete: bool = False) -> None:
        """Add pages, all or none; one that is there already is replaced. ``complete`` marks the index as such."""
        rows = [(page.key, page.parent, page.size, page.owner) for page in pages]
        with self._change() as connection:
            if complete:
                connection.execute("PRAGMA user_version = 1")
            connection.executemany("INSERT OR REPLACE INTO pages (key, parent, size, owner) VALUES (?, ?, ?, ?)", rows)

    def remove(self, keys: Iterable[bytes]) -> None:
        """Remove pages, all or none."""
        with self._change() as connection:
            connection.executemany("DELETE FROM pages WHERE key = ?", [(key,) for key in keys])

    def remove_one(self, key: bytes, seq: int) -> bool:
        """Remove a page unless it was stored anew since it had this number; say whether it was removed."""
        with self._change() as connection:
            return connection.execute("DELETE FROM pages WHERE key = ? AND seq = ?", (key, seq)).rowcount == 1

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        with self._lock, _as_os_errors():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._io.commit(self._connection)
            except BaseException:
                self._connection.rollback()
                raise


@contextmanager
def _as_os_errors() -> Iterator[None]:
    try:
        yield
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", 0) & PRIMARY
        if code in BROKEN:
            raise IndexBroken(errno.EIO, f"index: {error}") from error
        number = errno.ENOSPC if code == sqlite3.SQLITE_FULL else errno.EIO
        raise OSError(number, f"index: {error}") from error
