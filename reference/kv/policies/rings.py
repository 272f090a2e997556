"""Queues of pages in two arrays of page numbers, 8 bytes a page for all of them together."""

from __future__ import annotations

from array import array
from collections.abc import Iterator

EMPTY = -1


class Rings:
    """Circular doubly linked lists, each named by a small number; a page is in one of them at most.

    ``heads`` holds the oldest page of each, :data:`EMPTY` when there is none. Every call takes constant time.
    """

    def __init__(self, count: int) -> None:
        self.heads = [EMPTY] * count
        self.next = array("i")
        self.previous = array("i")

    def fit(self, page: int) -> int:
        """Make room for a page number; return how many numbers there is room for."""
        if page >= len(self.next):
            grown = bytes(self.next.itemsize * (max(page + 1, len(self.next) * 5 // 4) - len(self.next)))
            self.next.frombytes(grown)
            self.previous.frombytes(grown)
        return len(self.next)

    def append(self, ring: int, page: int) -> None:
        """Enter a page, which is in none, as the newest."""
        head = self.heads[ring]
        if head == EMPTY:
            self.heads[ring] = self.next[page] = self.previous[page] = page
            return
        newest = self.previous[head]
        self.next[newest] = self.previous[head] = page
        self.next[page] = head
        self.previous[page] = newest

    def unlink(self, ring: int, page: int) -> None:
        """Take a page out of the ring that it is in."""
        after = self.next[page]
        if after == page:
            self.heads[ring] = EMPTY
            return
        before = self.previous[page]
        self.next[before] = after
        self.previous[after] = before
        if self.heads[ring] == page:
            self.heads[ring] = after

    def walk(self, ring: int) -> Iterator[int]:
        """Yield a ring's pages from the oldest to the newest."""
        head = page = self.heads[ring]
        if head == EMPTY:
            return
        while True:
            yield page
            page = self.next[page]
            if page == head:
                return


def widened(numbers: array[int], room: int) -> array[int]:
    """Grow an array with zeros to ``room`` entries."""
    numbers.frombytes(bytes(numbers.itemsize * (room - len(numbers))))
    return numbers
