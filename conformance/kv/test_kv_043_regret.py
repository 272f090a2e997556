"""KV-043."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from gaugeblock.conformance.check import check

SEED, REQUESTS = 7, 250
SHARES = (0.1, 0.25)  # of all different blocks


@check(
    "KV-043",
    feature="eviction-policies",
    bound="hits between those of drawing victims by lot on the same trace, which knows nothing, and Belady's, which "
    "knows the future and which nobody exceeds at one block size",
    level="extended",
    sources=("https://github.com/LMCache/LMCache/issues/460", "https://doi.org/10.1147/sj.52.0078"),
)
def test_kv_043(record_property: Callable[[str, object], None]) -> None:
    """No policy regrets more than drawing lots would, and none has more hits than knowing the future gives

    Regret is what Belady's choice would have hit in addition. A policy that does worse than chance on chats is harmful:
    look at which end of its queue a new page enters. One with more hits than Belady counts wrong.
    """
    from gaugeblock.fixtures.traces import accesses, generate_trace
    from gaugeblock.reference.kv.policies import POLICIES
    from gaugeblock.reference.kv.replay import belady, replay

    trace = accesses(generate_trace(SEED, REQUESTS))
    told = []
    for share in SHARES:
        capacity = int(share * len(trace.keys))
        best, lots = belady(trace, capacity), replay(trace, _Lots(), capacity)
        spread = best.hits - lots.hits
        assert spread > 100, f"Belady has {best.hits} hits and lots {lots.hits}: nothing can be told apart"
        for name, make in POLICIES.items():
            hits = replay(trace, make(capacity), capacity).hits
            assert hits <= best.hits, (
                f"{name} has {hits} hits at {share:.0%} of the blocks, Belady {best.hits}: too many"
            )
            assert best.hits - hits <= spread, (
                f"{name} regrets {best.hits - hits} hits at {share:.0%} of the blocks, drawing lots {spread}"
            )
            told.append(f"{name} {(best.hits - hits) / spread:.2f}")
    record_property("evidence", f"regret as a share of that of drawing lots, at {SHARES}: {', '.join(told)}")


class _Lots:
    """Any page may be the next victim."""

    def __init__(self) -> None:
        self._rng = random.Random(SEED)
        self._pages: list[int] = []
        self._at: dict[int, int] = {}

    def add(self, page: int, key: bytes, size: int) -> None:
        self._at[page] = len(self._pages)
        self._pages.append(page)

    def touch(self, page: int) -> None:
        pass

    def remove(self, page: int, *, evicted: bool) -> None:
        at, last = self._at.pop(page), self._pages.pop()
        if last != page:
            self._pages[at] = last
            self._at[last] = at

    def victims(self, incoming: bytes | None = None) -> Iterator[int]:
        while self._pages:
            yield self._rng.choice(self._pages)
