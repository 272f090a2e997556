"""KV-024."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.inprocess_tiers import TierBench, TierBenches

# Pages of the device, the host and the disk, and how many jobs the worker does between two requests.
SIZES = ((4, 3, 6, 9), (4, 0, 5, 1), (5, 4, 0, 0), (4, 2, 3, 1), (6, 5, 4, 2), (4, 1, 2, 9))
REQUESTS = 40


@check(
    "KV-024",
    feature="kv-tiers",
    bound="exact, but for what follows a page that no tier could take because all it held was read or written",
    sources=("https://github.com/kvcache-ai/Mooncake/issues/1772",),
)
def test_kv_024(kv_tiers: TierBenches, record_property: Callable[[str, object], None]) -> None:
    """Eviction leaves no orphan: the page before every page is in some tier

    Chains that share their beginnings go through a small device, from which the last pages of a chain are stored first.
    A page without the one before it can never be hit and takes room. Look at which copies count when a page is asked
    whether it may go, and at what is refused when room for a whole chain runs out.
    """
    seen = evicted = refused = 0
    for seed, (device, host, disk, jobs) in enumerate(SIZES):
        bench = kv_tiers(host, disk)
        traffic = Traffic(bench, device, random.Random(seed))
        for number in range(REQUESTS):
            traffic.request()
            below = traffic.below()
            for name in sorted(below):
                assert name[:-1] in below | traffic.refused | {"", *traffic.device}, (
                    f"page {name} has no parent in any tier after request {number + 1} on a device of {device}, a host "
                    f"of {host} and a disk of {disk} pages; below the device: {', '.join(sorted(below))}"
                )
            seen += sum(len(name) > 1 for name in below)
            bench.run(jobs)
        refused += len(traffic.refused)
        evicted += bench.offload.host.index.evictions
        evicted += bench.offload.disk.index.evictions if bench.offload.disk else 0
    assert evicted > REQUESTS, f"{evicted} pages were evicted: nothing was checked"
    assert 20 * refused < seen, f"in {refused} of {seen} cases a page had been refused by every tier: too many to judge"
    record_property("evidence", f"{seen} pages looked at over {len(SIZES)} sizes, {evicted} evictions, no orphan")


class Traffic:
    """Requests for chains of up to four pages through a device that holds a few, least recently used first out."""

    def __init__(self, bench: TierBench, pages: int, chance: random.Random) -> None:
        self.bench = bench
        self.pages = pages
        self.chance = chance
        self.device: list[str] = []  # from old to new; a page is older than those before it in its chain
        self.refused: set[str] = set()  # left the device, and no tier took them

    def request(self) -> None:
        """Hold a chain on the device: what is there, what can be loaded, and the rest computed."""
        from gaugeblock.fixtures.targets.inprocess_tiers import chain

        names = chain("".join(self.chance.choice("ab") for _ in range(self.chance.randint(1, 4))))
        if self.chance.random() < 0.3:
            self.bench.prefetch(names)
        missing = [name for name in names if name not in self.device]
        if missing:
            self.bench.load(*missing)
        leaving = [name for name in self.device if name not in names]
        leaving = leaving[: max(0, len(self.device) + len(missing) - self.pages)]
        if leaving:
            self.bench.store(*leaving)
            self.refused |= set(leaving) - self.below()
        self.refused -= {*names, *self.below()}
        self.device = [name for name in self.device if name not in leaving and name not in names] + names[::-1]

    def below(self) -> set[str]:
        """Return the pages that lie in host or disk, or are on their way there."""
        from gaugeblock.reference.kv.tier import Lookup

        offload = self.bench.offload
        tiers = [offload.host.index] + ([offload.disk.index] if offload.disk else [])
        keys = offload.table.numbers
        return {self.bench.names[key] for key in keys if any(t.lookup(key) is not Lookup.MISS for t in tiers)}
