"""KV-026."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.inprocess_tiers import TierBench, TierBenches

HOST, DISK = 6, 20


@check(
    "KV-026",
    feature="kv-prefetch",
    bound="exact",
    sources=(
        "https://github.com/vllm-project/vllm/issues/44294",
        "https://github.com/sgl-project/sglang/pull/9643",
    ),
)
def test_kv_026(kv_tiers: TierBenches, record_property: Callable[[str, object], None]) -> None:
    """Pages come ahead of need in the order of the queue, within half of the host, and are read once

    Look at what bounds the pages under way, at what is evicted for them, and at what a load does that comes while a
    page is still being read: it waits for that read.
    """
    bench = kv_tiers(HOST, DISK)
    bench.store("abc", "ab", "a")
    bench.run()
    bench.store("xyz", "xy", "x", "pq", "p")
    bench.run()
    bench.store("u", "v", "w", "s", "t", "r")  # now nothing of the others is in the host
    bench.run()
    assert bench.host() == set("uvwstr"), f"the host holds {sorted(bench.host())}: nothing could be checked"

    bench.prefetch(["a"])
    for _ in range(2):  # a scheduler asks at every step
        bench.prefetch(["a", "ab"], ["x", "xy", "xyz"], ["p", "pq"])
        asked = reads(bench)
        assert len(asked) == len(set(asked)), f"pages {', '.join(asked)} are being read: one of them twice"
        assert 2 * len(asked) <= HOST, f"{len(asked)} pages are on their way to a host of {HOST}: more than half of it"
        assert asked == ["a", "ab", "x"], f"pages {', '.join(asked)} come instead of a, ab, x, the first of the queue"
    found = bench.load("a", "ab", "abc")
    assert found == ["a", "ab", "abc"], f"a load while two of its pages are being read brings {found}"
    again = bench.offload.disk.loaded if bench.offload.disk else 0
    assert again == 1, f"a load read {again} pages although two of its three were being read: each page is read once"
    bench.run()
    assert {"a", "ab", "x"} <= bench.host(), f"the host holds {sorted(bench.host())}: a, ab and x were to come"

    for _ in range(4):  # more than the host has room for
        bench.prefetch(["a", "ab"], ["x", "xy", "xyz"], ["p", "pq"])
        bench.run()
    wanted = {"a", "ab", "x", "xy", "xyz", "p"}
    assert bench.host() == wanted, (
        f"the host holds {sorted(bench.host())}, the first six of the queue are {sorted(wanted)}"
    )
    bench.prefetch(["p", "pq"], ["a", "ab"])
    bench.run()
    assert {"p", "pq"} <= bench.host(), f"the queue was turned round and pq is not there: {sorted(bench.host())}"
    record_property("evidence", f"{bench.offload.prefetched} pages came ahead of need, one was read on demand")


def reads(bench: TierBench) -> list[str]:
    """Return the pages that the worker has still to read, in order."""
    return [bench.names[args[0]] for _, _, name, args in bench.worker.jobs if name == "get"]
