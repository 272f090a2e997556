"""KV-007."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.inprocess_kv import KVBench


@check(
    "KV-007",
    feature="prefix-cache",
    bound="exact order: the reference evicts the least recently used leaf",
    level="extended",
    sources=("https://github.com/sgl-project/sglang/issues/4987",),
)
def test_kv_007(kv_bench: type[KVBench], record_property: Callable[[str, object], None]) -> None:
    """A prefix that is used again outlives one that is not, and a chain loses its end first

    Under an endless stream of new prompts a cache that never notes a hit throws out its most useful pages. Look at
    whether a hit renews the time of every page that it covers.
    """
    from gaugeblock.fixtures.targets.inprocess_kv import PAGE, tokens_of

    bench = kv_bench(6)
    bench.fill(tokens_of("used", 2))
    bench.fill(tokens_of("unused", 2))
    found = bench.hit(tokens_of("used", 2))
    assert found == 2 * PAGE, f"hit of {found} tokens before anything was evicted: nothing was checked"
    bench.fill(tokens_of("new", 3))  # one page too many
    assert bench.manager.evicted == 1, f"{bench.manager.evicted} pages were evicted for one that was missing"
    used, unused = bench.hit(tokens_of("used", 2)), bench.hit(tokens_of("unused", 2))
    assert used == 2 * PAGE, f"{used} of {2 * PAGE} tokens are left of the prefix used last, {unused} of the other"
    assert unused == PAGE, f"{unused} tokens are left of the older prefix instead of its first page of {PAGE}"
    record_property("evidence", "one page evicted: the end of the prefix that was not used again")
