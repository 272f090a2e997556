"""Largest goes first; among equals the least recently used."""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Iterator

from gaugeblock.reference.kv.policies.frontier import in_order
from gaugeblock.reference.kv.policies.rings import EMPTY, Rings, widened


class Size:
    """One queue a size, and a heap of the sizes: constant time while sizes are few, O(log sizes) otherwise.

    SIZE of Williams et al., "Removal Policies in Network Caches for World-Wide Web Documents" (SIGCOMM 1996): one large
    page makes room for many small ones, which is best for hits by count and blind to how often a page is used. Among
    equals the least recently used goes, so pages of one size leave as under LRU. 12 bytes a page.
    """

    def __init__(self, _capacity: int) -> None:
        self._rings = Rings(0)
        self._ring_of: dict[int, int] = {}  # size -> ring
        self._ring = array("i")  # page -> ring
        self._sizes: list[int] = []  # ring -> size
        self._spare: list[int] = []  # rings that are empty
        self._largest: list[int] = []  # heap of -size; those of empty rings leave when they reach the top

    def add(self, page: int, key: bytes, size: int) -> None:
        """Enter a page as the newest of its size."""
        widened(self._ring, self._rings.fit(page))
        ring = self._ring_of.get(size)
        if ring is None:
            ring = self._ring_of[size] = self._new_ring(size)
        self._ring[page] = ring
        self._rings.append(ring, page)

    def touch(self, page: int) -> None:
        """Make a page the newest of its size."""
        ring = self._ring[page]
        self._rings.unlink(ring, page)
        self._rings.append(ring, page)

    def remove(self, page: int, *, evicted: bool) -> None:
        """Take a page out; a size that no page has is forgotten."""
        ring = self._ring[page]
        self._rings.unlink(ring, page)
        if self._rings.heads[ring] == EMPTY:
            del self._ring_of[self._sizes[ring]]
            self._spare.append(ring)
            self._drop_stale()

    def victims(self, incoming: bytes | None = None) -> Iterator[int]:
        """Yield pages from the largest size to the smallest, each size from the oldest."""
        last = None
        for negative in in_order(self._largest):
            ring = self._ring_of.get(-negative)
            if ring is not None and negative != last:  # a size that left and came back is on the heap twice
                last = negative
                yield from self._rings.walk(ring)

    def _new_ring(self, size: int) -> int:
        heapq.heappush(self._largest, -size)
        if self._spare:
            ring = self._spare.pop()
            self._sizes[ring] = size
            return ring
        self._rings.heads.append(EMPTY)
        self._sizes.append(size)
        return len(self._sizes) - 1

    def _drop_stale(self) -> None:
        heap = self._largest
        while heap and -heap[0] not in self._ring_of:
            heapq.heappop(heap)
        if len(heap) > 2 * len(self._ring_of) + 64:
            self._largest = sorted(-size for size in self._ring_of)
