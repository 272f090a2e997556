"""KV-040."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.policy_bench import PolicyBench

STEPS = 160
SCAN = 600  # pages that come once; 25 times what fits


@check(
    "KV-040",
    feature="eviction-policies",
    bound="exact; memory after 2 x 600 pages that came once: at most 1.5 x that after 600, for arrays grow in steps",
    sources=(
        "https://github.com/redpanda-data/redpanda/pull/31609",
        "https://github.com/vllm-project/vllm/pull/27039",
    ),
)
def test_kv_040(record_property: Callable[[str, object], None]) -> None:
    """Every policy offers each page it holds once and nothing else, in an order that lasts, within bounded memory

    One suite for all policies: after every step of a random run the victims are the pages held; evicting the first
    three leaves the rest of the order as it was announced; and what is remembered of evicted pages is bounded. Look at
    what a removal leaves behind, and at who trims the ghosts.
    """
    from gaugeblock.fixtures.targets.policy_bench import PolicyBench
    from gaugeblock.reference.kv.policies import POLICIES

    evicted = 0
    for name in POLICIES:
        bench = PolicyBench(name)
        for step in bench.workout(40, STEPS):
            order = bench.order()
            if step % 16 == 15:
                for page in order[:3]:
                    bench.drop(page, evicted=True)
                left = bench.order()
                assert left == order[3:], (
                    f"{name}: announced {order}; after three of them have gone, the rest is {left}"
                )
        assert bench.evicted > 20, f"{name}: {bench.evicted} pages were evicted in {STEPS} steps: nothing was checked"
        evicted += bench.evicted
        _assert_bounded(bench)
    record_property("evidence", f"{len(POLICIES)} policies, {evicted} evictions, {2 * SCAN} pages that came once each")


def _assert_bounded(bench: PolicyBench) -> None:
    import pickle

    weights = []
    for part in range(2):
        for number in range(SCAN):
            bench.store(b"once %d %d" % (part, number), 64)
        weights.append(len(pickle.dumps(bench.policy)))
    assert weights[1] <= 1.5 * weights[0], (
        f"{bench.name}: {weights[0]} bytes of memory after {SCAN} pages that came once, {weights[1]} after as many "
        f"more: it holds {len(bench.held)}, and remembers all that it evicted"
    )
