"""KV-001."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.inprocess_kv import KVBench


@check(
    "KV-001",
    feature="prefix-cache",
    gate=True,
    bound="exact",
    sources=("https://github.com/vllm-project/vllm/issues/53498",),
)
def test_kv_001(kv_bench: type[KVBench], record_property: Callable[[str, object], None]) -> None:
    """What was computed and let go is found again

    Three pages are computed, released and looked up. Nothing else can be said about a cache that never hits: look at
    whether a full page enters the index at all.
    """
    from gaugeblock.fixtures.targets.inprocess_kv import PAGE, tokens_of

    bench = kv_bench(8)
    tokens = tokens_of("smoke", 3)
    before = bench.hit(tokens)
    assert before == 0, f"an empty cache gives a hit of {before} tokens"
    bench.fill(tokens)
    allocation = bench.begin(tokens)
    assert allocation is not None, "no room for 3 pages of 8"
    assert allocation.hit_tokens == 3 * PAGE, f"hit of {allocation.hit_tokens} tokens, {3 * PAGE} were computed"
    bench.release(allocation)
    pool = bench.manager.pool
    assert (pool.free, pool.idle, pool.held) == (5, 3, 0), (
        f"at rest {pool.free} free, {pool.idle} cached and {pool.held} held pages instead of 5, 3 and 0"
    )
    record_property("evidence", f"{3 * PAGE} tokens computed and found again")
