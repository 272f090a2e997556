"""Reads a heap in order without taking anything out of it."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Any, TypeVar

Entry = TypeVar("Entry", bound=Any)


def in_order(heap: list[Entry]) -> Iterator[Entry]:
    """Yield the entries of a :mod:`heapq` heap from the smallest on; the heap stays as it is.

    Only the frontier is kept: entries whose parent was yielded. The first k entries cost O(k log k) time and O(k)
    memory, however large the heap is.
    """
    if not heap:
        return
    yield heap[0]
    front = [(heap[child], child) for child in (1, 2) if child < len(heap)]
    heapq.heapify(front)
    while front:
        entry, at = heapq.heappop(front)
        yield entry
        for child in (2 * at + 1, 2 * at + 2):
            if child < len(heap):
                heapq.heappush(front, (heap[child], child))
