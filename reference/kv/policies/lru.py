"""Least recently used goes first."""

from __future__ import annotations

from array import array
from collections.abc import Iterator


class LRU:
    """A doubly linked list in two arrays of page numbers, 8 bytes a page. Every call takes constant time.

    Link 0 is the list's end, so page ``p`` has link ``p + 1``: following ``next`` from 0 goes from old to new.
    """

    def __init__(self, _capacity: int) -> None:
        self._next = array("i", [0])
        self._previous = array("i", [0])

    def add(self, page: int, key: bytes, size: int) -> None:
        """Enter a page as the newest."""
        if page + 1 >= len(self._next):
            grown = max(page + 2, len(self._next) * 5 // 4) - len(self._next)
            self._next.frombytes(bytes(4 * grown))
            self._previous.frombytes(bytes(4 * grown))
        self._append(page + 1)

    def touch(self, page: int) -> None:
        """Make a page the newest."""
        self._unlink(page + 1)
        self._append(page + 1)

    def remove(self, page: int, *, evicted: bool) -> None:
        """Take a page off the list."""
        self._unlink(page + 1)

    def victims(self, incoming: bytes | None = None) -> Iterator[int]:
        """Yield pages from the oldest to the newest."""
        following = self._next
        link = following[0]
        while link:
            yield link - 1
            link = following[link]

    def _append(self, link: int) -> None:
        newest = self._previous[0]
        self._next[newest] = link
        self._previous[link] = newest
        self._next[link] = 0
        self._previous[0] = link

    def _unlink(self, link: int) -> None:
        before, after = self._previous[link], self._next[link]
        self._next[before] = after
        self._previous[after] = before
