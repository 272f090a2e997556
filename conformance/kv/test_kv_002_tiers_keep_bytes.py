"""KV-002."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.inprocess_kv import KVBench

PAGES = 6
HOST_PAGES = 12


@check(
    "KV-002",
    feature="kv-host-tier",
    bound="exact: bytes that moved through the host are the bytes that were stored",
    sources=(
        "https://github.com/sgl-project/sglang/issues/31427",
        "https://github.com/LMCache/LMCache/issues/4385",
        "https://github.com/sgl-project/sglang/issues/33268",
    ),
)
def test_kv_002(kv_bench: type[KVBench], record_property: Callable[[str, object], None]) -> None:
    """Stored, evicted and promoted pages hold the bytes of their own tokens

    Page contents are derived from all tokens up to the page's end, so a page of another key, a zeroed or a rounded one
    shows. Look at when the copy is taken, under which key, and in which dtype.
    """
    from gaugeblock.fixtures.targets.inprocess_kv import PAGE, tokens_of

    bench = kv_bench(PAGES, HOST_PAGES * kv_bench.shape.page_bytes)
    names = ("first", "second", "third")
    for name in names:  # 9 pages through a device of 6
        bench.fill(tokens_of(name, 3))
    assert bench.manager.evicted >= 3, f"{bench.manager.evicted} pages were evicted: nothing was checked"
    moved = 0
    for name in names * 2:
        tokens = tokens_of(name, 3)
        before = bench.manager.promoted
        allocation = bench.begin(tokens)
        assert allocation is not None, f"{name}: no room for 3 pages"
        assert allocation.hit_tokens == 3 * PAGE, (
            f"{name}: hit of {allocation.hit_tokens} tokens, {3 * PAGE} were computed and fit into the two tiers"
        )
        wrong = bench.wrong_page(allocation, tokens, 3)
        assert wrong is None, f"{name}, {bench.manager.promoted - before} pages from the host: {wrong}"
        moved += bench.manager.promoted - before
        bench.release(allocation)
    assert moved >= 6, f"{moved} pages were promoted from the host: nothing was checked"
    record_property("evidence", f"{bench.manager.evicted} pages evicted, {moved} promoted, all bytes equal")
