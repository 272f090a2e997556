"""Greedy dual size frequency: used often and small stays, and what is no longer used ages out."""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Iterator

from gaugeblock.reference.kv.policies.frontier import in_order
from gaugeblock.reference.kv.policies.rings import EMPTY, Rings, widened

Head = tuple[float, float, int]  # priority, minus uses / size, page


class GDSF:
    """A page's priority is ``clock + uses / size``, set when it is used; the lowest goes, and the clock becomes that.

    Cherkasova, "Improving WWW Proxies Performance with Greedy-Dual-Size-Frequency Caching Policy" (HP Labs, 1998), with
    every page costing the same to compute. The clock is what makes it forget: a page that was used a hundred times long
    ago has a priority that the clock overtakes.

    Pages of one size and one number of uses lie in a queue of their own. The clock only rises, so such a queue is in
    order of priority and only its oldest page is on the heap: the heap has one live entry a queue, and most calls take
    constant time. Of equal priorities the larger ``uses / size`` goes first: it was used when the clock was lower. A
    new page's priority is of the clock as it was before room was made for the page. 20 bytes a page.
    """

    def __init__(self, _capacity: int) -> None:
        self.clock = 0.0
        self._clock_before = 0.0  # at the last call but removals
        self._rings = Rings(0)
        self._ring_of: dict[tuple[int, int], int] = {}  # (uses, size) -> ring
        self._ring = array("i")  # page -> ring
        self._priority = array("d")
        self._about: list[tuple[int, int]] = []  # ring -> (uses, size)
        self._worth: list[float] = []  # ring -> minus uses / size
        self._spare: list[int] = []  # rings that are empty
        self._heap: list[Head] = []  # oldest pages of the rings, and entries that are no longer true

    def add(self, page: int, key: bytes, size: int) -> None:
        """Take a page in as used once."""
        room = self._rings.fit(page)
        if len(self._ring) < room:
            widened(self._ring, room)
            self._priority.frombytes(bytes(8 * (room - len(self._priority))))
        self._enter(page, 1, size, self._clock_before)

    def touch(self, page: int) -> None:
        """Count a use, and take the priority from the clock as it stands."""
        uses, size = self._about[self._ring[page]]
        self._leave(page)
        self._enter(page, uses + 1, size, self.clock)

    def remove(self, page: int, *, evicted: bool) -> None:
        """Take a page out; if it was evicted, everything else has aged to its priority."""
        if evicted and self._priority[page] > self.clock:
            self.clock = self._priority[page]
        self._leave(page)

    def victims(self, incoming: bytes | None = None) -> Iterator[int]:
        """Yield pages from the lowest priority to the highest."""
        behind: list[Head] = []  # pages whose elder in the queue was yielded
        last = None
        for entry in in_order(self._heap):
            if entry == last or not self._is_head(entry):
                continue
            last = entry
            while behind and behind[0] < entry:
                yield self._advance(behind)
            yield entry[2]
            self._push_younger(entry[2], behind)
        while behind:
            yield self._advance(behind)

    def _advance(self, behind: list[Head]) -> int:
        page = heapq.heappop(behind)[2]
        self._push_younger(page, behind)
        return page

    def _push_younger(self, page: int, behind: list[Head]) -> None:
        younger = self._rings.next[page]
        if younger != self._rings.heads[self._ring[page]]:
            heapq.heappush(behind, self._entry(younger))

    def _enter(self, page: int, uses: int, size: int, clock: float) -> None:
        ring = self._ring_of.get((uses, size))
        if ring is None:
            ring = self._new_ring(uses, size)
        self._ring[page] = ring
        self._priority[page] = clock - self._worth[ring]
        self._clock_before = self.clock
        was_empty = self._rings.heads[ring] == EMPTY
        self._rings.append(ring, page)
        if was_empty:
            heapq.heappush(self._heap, self._entry(page))

    def _leave(self, page: int) -> None:
        ring = self._ring[page]
        heads = self._rings.heads
        was_head = heads[ring] == page
        self._rings.unlink(ring, page)
        if heads[ring] == EMPTY:
            del self._ring_of[self._about[ring]]
            self._spare.append(ring)
        elif was_head:
            heapq.heappush(self._heap, self._entry(heads[ring]))
        if was_head:
            self._drop_stale()

    def _entry(self, page: int) -> Head:
        return self._priority[page], self._worth[self._ring[page]], page

    def _is_head(self, entry: Head) -> bool:
        priority, worth, page = entry
        ring = self._ring[page]
        return self._rings.heads[ring] == page and self._priority[page] == priority and self._worth[ring] == worth

    def _new_ring(self, uses: int, size: int) -> int:
        if self._spare:
            ring = self._spare.pop()
            self._about[ring] = (uses, size)
            self._worth[ring] = -uses / size
        else:
            ring = len(self._about)
            self._rings.heads.append(EMPTY)
            self._about.append((uses, size))
            self._worth.append(-uses / size)
        self._ring_of[uses, size] = ring
        return ring

    def _drop_stale(self) -> None:
        heap = self._heap
        while heap and not self._is_head(heap[0]):
            heapq.heappop(heap)
        if len(heap) > 2 * len(self._ring_of) + 64:
            self._heap = sorted(self._entry(self._rings.heads[ring]) for ring in self._ring_of.values())
