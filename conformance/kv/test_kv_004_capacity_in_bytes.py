"""KV-004."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.inprocess_kv import KVBench

SEQUENCES = 8


@check(
    "KV-004",
    feature="kv-host-tier",
    bound="exact: bytes in the tier <= capacity after every step, and the counter equals a count from scratch",
    sources=("https://github.com/LMCache/LMCache/issues/4546",),
)
def test_kv_004(kv_bench: type[KVBench], record_property: Callable[[str, object], None]) -> None:
    """The host tier stays within its bytes after every step, and its counter is right

    The capacity is no multiple of a page, and one tier is a byte too small for two. Look at whether pages or bytes are
    counted, and whether a dropped page is taken off the counter.
    """
    from gaugeblock.fixtures.targets.inprocess_kv import tokens_of

    page = kv_bench.shape.page_bytes
    for capacity in (3 * page + page // 2, 2 * page - 1, 0):
        bench = kv_bench(4, capacity)
        tier = bench.manager.offload.host
        for number in range(SEQUENCES):
            bench.fill(tokens_of(f"sequence {number}", 3))
            actual = len(tier) * page
            assert actual <= capacity, f"{actual} bytes are in a tier of {capacity}, after {number + 1} sequences"
            assert tier.index.used == actual, f"the tier counts {tier.index.used} bytes, {actual} are in it"
        evicted = bench.manager.evicted
        assert evicted > 12, f"{evicted} pages were evicted: nothing was checked"
        kept = len(tier)
        assert kept == capacity // page, f"{kept} pages are in a tier that has room for {capacity // page} of {evicted}"
    record_property("evidence", f"{SEQUENCES} sequences through tiers of 3.5, 1.99 and 0 pages")
