"""KV-044."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from gaugeblock.conformance.check import check
from gaugeblock.reference.kv.policies.base import Policy

PAGES = 20
SIZE = 64


@check(
    "KV-044",
    feature="eviction-policies",
    bound="exact: an eviction for each page that lacks room, or none and a refusal, within a walk or two of the pages",
    sources=(
        "https://github.com/sgl-project/sglang/issues/4987",
        "https://github.com/LMCache/LMCache/issues/2942",
        "https://github.com/redpanda-data/redpanda/pull/29991",
    ),
)
def test_kv_044(record_property: Callable[[str, object], None]) -> None:
    """Making room evicts just enough, or reports that it cannot and changes nothing, and ends

    With every policy: one page too many, five at once, and then pages that are being read, so that few or none may go.
    Look at the loop that evicts: at what it counts, and at what it does when no candidate is left.
    """
    from gaugeblock.reference.kv.policies import POLICIES
    from gaugeblock.reference.kv.table import PageTable
    from gaugeblock.reference.kv.tier import NewPage, Tier

    for name, make in POLICIES.items():
        policy = _Bounded(name, make(PAGES * SIZE))
        tier = Tier("checked", PAGES * SIZE + SIZE // 2, policy, PageTable(), 1)

        def store(*keys: int, tier: Tier = tier) -> int | None:
            """Return how many pages went, None if the tier refuses."""
            names = [b"key %d" % key for key in keys]
            plan = tier.prepare_store([NewPage(key, b"", SIZE) for key in names])
            if plan is None:
                return None
            tier.complete_store(names)
            return len(plan.evicted)

        assert store(*range(PAGES)) == 0, f"{name}: pages were evicted while there was room"
        for wanted in (1, 1, 5):
            gone = store(*range(tier.evictions + 100, tier.evictions + 100 + wanted))
            assert gone == wanted, f"{name}: {gone} pages were evicted for {wanted} that lacked room"
        held = tier.keys()
        reading, free = held[2:], set(held[:2])
        assert tier.prepare_load(reading), f"{name}: {len(reading)} pages that are held cannot be read"
        assert store(1000, 1001, 1002) is None, f"{name}: three pages were stored although two may go"
        assert tier.keys() == held, f"{name}: a refused store changed what is held"
        gone = store(1000, 1001)
        assert gone == 2, f"{name}: {gone} pages were evicted for 2 that lacked room, and two may go"
        assert not free & set(tier.keys()), f"{name}: a page that is being read was evicted instead of one that is not"
        assert tier.prepare_load([b"key 1000", b"key 1001"]), f"{name}: pages just stored cannot be read"
        assert store(1003) is None, f"{name}: a page was stored although none may go"
        assert policy.looks > 2 * PAGES, f"{name}: {policy.looks} looks at a victim: nothing was checked"
        tier.recount()
    record_property("evidence", f"{len(POLICIES)} policies: 9 pages evicted for 9, two stores refused, unchanged")


class _Bounded:
    """Fails when somebody goes on looking for victims and none goes."""

    def __init__(self, name: str, policy: Policy) -> None:
        self._name, self._policy = name, policy
        self.add, self.touch = policy.add, policy.touch
        self.looks = self._idle = 0

    def remove(self, page: int, *, evicted: bool) -> None:
        self._idle = 0
        self._policy.remove(page, evicted=evicted)

    def victims(self, incoming: bytes | None = None) -> Iterator[int]:
        self._look()
        for page in self._policy.victims(incoming):
            self._look()
            yield page

    def _look(self) -> None:
        self.looks += 1
        self._idle += 1
        assert self._idle < 10 * PAGES, (
            f"{self._name}: no end to a search among {PAGES} pages, {self._idle} looks so far"
        )
