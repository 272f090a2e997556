"""Adaptive replacement: splits the tier between what was used once and what was used again, and learns where."""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Iterator

from gaugeblock.reference.kv.policies.rings import EMPTY, Rings, widened

ONCE, AGAIN = 0, 1


class ARC:
    """Two LRU lists and a memory of what each evicted; a miss that was remembered moves the border between them.

    Megiddo and Modha, "ARC: A Self-Tuning, Low Overhead Replacement Cache" (FAST 2003): ``ONCE`` is the paper's T1 with
    the ghosts B1, ``AGAIN`` is T2 with B2, ``target`` is its p. All are measured in bytes. A scan passes through ONCE
    and leaves AGAIN alone.

    Making room comes before storing here, so a miss is judged (:meth:`victims` with ``incoming``) and learnt from
    (:meth:`add`) by the ghosts as they were before any page went. 25 bytes a page, and each ghost keeps a key.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.target = 0.0  # bytes that ONCE may have
        self._rings = Rings(2)
        self._bytes = [0, 0]
        self._ring = bytearray()  # page -> ONCE or AGAIN
        self._sizes = array("q")
        self._keys: list[bytes] = []
        self._ghosts: tuple[OrderedDict[bytes, int], OrderedDict[bytes, int]] = (OrderedDict(), OrderedDict())
        self._ghost_bytes = [0, 0]
        self._judged = (0, 0)  # ghost bytes before room was made for the next page

    def add(self, page: int, key: bytes, size: int) -> None:
        """Take a page in: as used again if its key is remembered, and then the border moves."""
        room = self._rings.fit(page)
        if len(self._sizes) < room:
            widened(self._sizes, room)
            self._ring.extend(bytes(room - len(self._ring)))
            self._keys.extend([b""] * (room - len(self._keys)))
        self._sizes[page] = size
        self._keys[page] = key
        self.target = self._target_for(key, size)
        ring = AGAIN if self._recall(ONCE, key) or self._recall(AGAIN, key) else ONCE
        self._ring[page] = ring
        self._rings.append(ring, page)
        self._bytes[ring] += size
        self._trim()
        self._judged = (self._ghost_bytes[0], self._ghost_bytes[1])

    def touch(self, page: int) -> None:
        """Make a page the newest of those that were used again."""
        ring = self._ring[page]
        self._rings.unlink(ring, page)
        self._rings.append(AGAIN, page)
        if ring == ONCE:
            size = self._sizes[page]
            self._bytes[ONCE] -= size
            self._bytes[AGAIN] += size
            self._ring[page] = AGAIN

    def remove(self, page: int, *, evicted: bool) -> None:
        """Take a page out, and remember it if it was evicted."""
        ring, size, key = self._ring[page], self._sizes[page], self._keys[page]
        self._rings.unlink(ring, page)
        self._bytes[ring] -= size
        self._keys[page] = b""
        if evicted:
            self._ghosts[ring][key] = size
            self._ghost_bytes[ring] += size

    def victims(self, incoming: bytes | None = None) -> Iterator[int]:
        """Yield the oldest of ONCE while it is above its target, else the oldest of AGAIN, as if each went at once."""
        heads, following, sizes = self._rings.heads, self._rings.next, self._sizes
        target, tie = self.target, False
        if incoming is not None:
            size = self._ghosts[ONCE].get(incoming) or self._ghosts[AGAIN].get(incoming)
            if size is not None:
                target, tie = self._target_for(incoming, size), incoming in self._ghosts[AGAIN]
        once, again = heads
        in_once = self._bytes[ONCE]
        while once != EMPTY or again != EMPTY:
            if once != EMPTY and (again == EMPTY or in_once > target or (tie and in_once == target)):
                yield once
                in_once -= sizes[once]
                once = following[once]
                if once == heads[ONCE]:
                    once = EMPTY
            else:
                yield again
                again = following[again]
                if again == heads[AGAIN]:
                    again = EMPTY

    def _target_for(self, key: bytes, size: int) -> float:
        """Return the border after a miss of ``key``: the list with fewer ghosts learns faster from each."""
        once, again = self._judged
        if key in self._ghosts[ONCE]:
            return min(self.capacity, self.target + max(again / max(once, 1), 1.0) * size)
        if key in self._ghosts[AGAIN]:
            return max(0.0, self.target - max(once / max(again, 1), 1.0) * size)
        return self.target

    def _recall(self, ring: int, key: bytes) -> bool:
        size = self._ghosts[ring].pop(key, None)
        if size is None:
            return False
        self._ghost_bytes[ring] -= size
        return True

    def _trim(self) -> None:
        """Forget the oldest ghosts: ONCE with its own fills one capacity, everything together two."""
        ghost_bytes, held = self._ghost_bytes, self._bytes
        while self._ghosts[ONCE] and held[ONCE] + ghost_bytes[ONCE] > self.capacity:
            ghost_bytes[ONCE] -= self._ghosts[ONCE].popitem(last=False)[1]
        while self._ghosts[AGAIN] and sum(held) + sum(ghost_bytes) > 2 * self.capacity:
            ghost_bytes[AGAIN] -= self._ghosts[AGAIN].popitem(last=False)[1]
