"""Three queues: most pages are used once, so a small queue filters them out before they can fill the tier."""

from __future__ import annotations

from array import array
from collections import OrderedDict, deque
from collections.abc import Iterator

from gaugeblock.reference.kv.policies.rings import EMPTY, Rings, widened

SMALL, MAIN = 0, 1
SMALL_SHARE = 0.1  # of the tier's bytes; the ghosts remember as many bytes as MAIN holds
USES_TO_STAY = 2  # uses after which a page of SMALL goes to MAIN, the paper's "more than once"
MOST_USES = 3  # the paper's two bits

EVICT, PROMOTE, ROUND = 0, 1, 2
"""What happens to a page that a hand reaches: it goes, it moves to MAIN, or it stays in MAIN for one of its uses."""


class S3FIFO:
    """New pages queue in SMALL; those used twice while there go on to MAIN, the others leave behind a ghost.

    Yang et al., "FIFO Queues are All You Need for Cache Eviction" (SOSP 2023). A page whose ghost is still known goes
    to MAIN at once. MAIN is a clock: a page that was used stays for another round, at most three times. Until anything
    is evicted, pages for which SMALL has no room go to MAIN.

    Pages that the hand passes change queue or lose a use, so that happens in :meth:`remove`, which walks again what
    :meth:`victims` only looked at. A victim that was passed over because it may not go stays where it is. Each call
    takes amortised constant time beside what it passes over. 26 bytes a page, and each ghost keeps a key.
    """

    def __init__(self, capacity: int) -> None:
        self._small_limit = int(capacity * SMALL_SHARE)
        self._main_limit = capacity - self._small_limit
        self._ghost_limit = int(capacity * (1 - SMALL_SHARE))
        self._warming = True  # nothing was evicted yet
        self._rings = Rings(2)
        self._bytes = [0, 0]
        self._ring = bytearray()  # page -> SMALL or MAIN
        self._uses = bytearray()
        self._sizes = array("q")
        self._keys: list[bytes] = []
        self._ghosts: OrderedDict[bytes, int] = OrderedDict()  # key -> size
        self._ghost_bytes = 0

    def add(self, page: int, key: bytes, size: int) -> None:
        """Take a page in as unused."""
        room = self._rings.fit(page)
        if len(self._sizes) < room:
            widened(self._sizes, room)
            more = bytes(room - len(self._uses))
            self._ring.extend(more)
            self._uses.extend(more)
            self._keys.extend([b""] * len(more))
        self._sizes[page] = size
        self._keys[page] = key
        self._uses[page] = 0
        known = self._ghosts.pop(key, None)
        if known is not None:
            self._ghost_bytes -= known
        while self._ghost_bytes > self._ghost_limit:
            self._ghost_bytes -= self._ghosts.popitem(last=False)[1]
        small_is_full = self._warming and self._bytes[SMALL] >= self._small_limit
        self._enter(MAIN if known is not None or small_is_full else SMALL, page)

    def touch(self, page: int) -> None:
        """Count a use."""
        if self._uses[page] < MOST_USES:
            self._uses[page] += 1

    def remove(self, page: int, *, evicted: bool) -> None:
        """Take a page out; if it was evicted, the queues' hands have moved up to it."""
        if evicted:
            self._warming = False
            if not self._is_next(page):
                self._advance(page)
        ring, size = self._ring[page], self._sizes[page]
        self._leave(page)
        if evicted and ring == SMALL:
            self._ghosts[self._keys[page]] = size
            self._ghost_bytes += size
        self._keys[page] = b""

    def victims(self, incoming: bytes | None = None) -> Iterator[int]:
        """Yield pages in the order in which the hands reach them unused, as if each went at once."""
        for page, step in self._steps():
            if step == EVICT:
                yield page

    def _is_next(self, page: int) -> bool:
        """Tell whether a hand stands at ``page`` already, and would evict it."""
        heads = self._rings.heads
        if self._bytes[MAIN] > self._main_limit or heads[SMALL] == EMPTY:
            return heads[MAIN] == page and not self._uses[page]
        return heads[SMALL] == page and self._uses[page] < USES_TO_STAY

    def _advance(self, page: int) -> None:
        """Do to the queues what happens on the way to ``page``."""
        passed = []
        for reached, step in self._steps():
            if step != EVICT:
                passed.append((reached, step))
            elif reached == page:
                break
        for reached, step in passed:
            self._leave(reached)
            self._uses[reached] = 0 if step == PROMOTE else self._uses[reached] - 1
            self._enter(MAIN, reached)

    def _steps(self) -> Iterator[tuple[int, int]]:
        """Yield what the hands would do, and change nothing.

        For each victim MAIN moves if it is above its share or SMALL is empty, else SMALL does.
        """
        heads, following, uses, sizes = self._rings.heads, self._rings.next, self._uses, self._sizes
        small, main = heads
        main_bytes = self._bytes[MAIN]
        behind: deque[tuple[int, int]] = deque()  # pages and uses of those that would be at MAIN's end by now
        while True:
            if small != EMPTY and main_bytes <= self._main_limit:
                while small != EMPTY:
                    page = small
                    small = following[page] if following[page] != heads[SMALL] else EMPTY
                    if uses[page] < USES_TO_STAY:
                        yield page, EVICT
                        break
                    yield page, PROMOTE
                    behind.append((page, 0))
                    main_bytes += sizes[page]
                continue
            if main != EMPTY:
                page, used = main, uses[main]
                main = following[main] if following[main] != heads[MAIN] else EMPTY
            elif behind:
                page, used = behind.popleft()
            else:
                break
            if used:
                yield page, ROUND
                behind.append((page, used - 1))
            else:
                yield page, EVICT
                main_bytes -= sizes[page]

    def _enter(self, ring: int, page: int) -> None:
        self._ring[page] = ring
        self._rings.append(ring, page)
        self._bytes[ring] += self._sizes[page]

    def _leave(self, page: int) -> None:
        ring = self._ring[page]
        self._rings.unlink(ring, page)
        self._bytes[ring] -= self._sizes[page]
