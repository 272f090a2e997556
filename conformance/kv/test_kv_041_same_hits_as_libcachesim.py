"""KV-041."""

from __future__ import annotations

from collections.abc import Callable

from gaugeblock.conformance.check import check


@check(
    "KV-041",
    feature="eviction-policies",
    bound="exact: a policy that decides as libcachesim's of that name has as many hits, whatever breaks no tie",
    sources=(
        "https://github.com/1a1a11a/libCacheSim",
        "https://github.com/openzfs/zfs/pull/10618",
        "https://github.com/chmonitor/chmonitor/issues/2954",
    ),
)
def test_kv_041(record_property: Callable[[str, object], None]) -> None:
    """Each policy has the hits on a trace of chats that libcachesim has with the policy of that name

    The recorded figures are another implementation's, on the same generated trace (``golden/policies/hits.json`` says
    how they were made). Fewer or more hits: the policy is not the one that its name says. Look at what a use changes,
    then at the ghosts.
    """
    from gaugeblock.fixtures.policy_hits import load_hits, traces
    from gaugeblock.reference.kv.policies import POLICIES
    from gaugeblock.reference.kv.replay import replay

    recorded = load_hits()
    replays = 0
    for kind, trace in traces().items():
        for name, by_capacity in recorded[kind].items():
            for capacity, hits in by_capacity.items():
                result = replay(trace, POLICIES[name](int(capacity)), int(capacity))
                assert result.evicted > 100, f"{name}: {result.evicted} evictions at {capacity}: nothing was checked"
                assert result.hits == hits, (
                    f"{name} on blocks of {kind} size at {capacity} bytes: {result.hits} hits of {result.accesses}, "
                    f"libcachesim has {hits}"
                )
                replays += 1
    assert {name for kind in recorded.values() for name in kind} >= {"lru", "size", "gdsf", "arc", "s3fifo"}
    record_property("evidence", f"{replays} replays with libcachesim's number of hits")
