"""KV-011."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.kv_target import KVFactory

WORDS = ("aba", "baa", "caa", "abb", "acc", "bba", "cca")


@check(
    "KV-011",
    feature="prefix-cache",
    bound="exact: no tier is above its capacity, and the tiers count at least the pages that are found",
    sources=("https://github.com/LMCache/LMCache/issues/4546",),
)
def test_kv_011(kv_target: KVFactory, record_property: Callable[[str, object], None]) -> None:
    """Each tier stays within its bytes, and a flush brings all counters to zero

    Look at whether a page that leaves a tier is taken off its counter, on every way out: eviction, replacement, flush.
    """
    from gaugeblock.fixtures.targets.kv_probe import KVProbe

    probe = KVProbe(kv_target(4, 5))
    size = probe.target.page_bytes
    for turn in range(3):
        for word in WORDS:
            probe.store(word)
            probe.audit()
            for name, tier in probe.usage().items():
                assert 0 <= tier.used <= tier.capacity, f"{tier.used} bytes are in a {name} tier of {tier.capacity}"
            counted = sum(tier.used for tier in probe.usage().values()) // size
            found = probe.lookup(word)
            assert counted >= found, f"{found} pages are found, the tiers count {counted}"
        room = sum(probe.tiers)
        full = sum(tier.used for tier in probe.usage().values()) // size
        assert turn or full >= probe.tiers[0] - 3, f"{full} pages are in tiers of {room}: nothing was checked"
        probe.call("clear", probe.target.clear)
        left = {name: tier.used for name, tier in probe.usage().items() if tier.used}
        assert not left, f"bytes are counted after a flush: {left}"
        found = probe.lookup(WORDS[-1])
        assert found == 0, f"{found} pages are found after a flush"
    record_property("evidence", f"{3 * len(WORDS)} prefixes through tiers of {probe.tiers} pages, flushed three times")
