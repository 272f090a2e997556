"""KV-042."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.policy_bench import PolicyBench

SEEDS = range(4)
STEPS = 180


@check(
    "KV-042",
    feature="eviction-policies",
    bound="exact: the same victims in the same order, however often somebody looks",
    sources=("https://github.com/DynamoRIO/dynamorio/pull/7314", "https://github.com/openzfs/zfs/issues/8104"),
)
def test_kv_042(record_property: Callable[[str, object], None]) -> None:
    """Choosing a victim changes nothing: who only looks leaves the order as it was

    A tier looks at candidates and then finds that they may not go, or that there is not enough room in all. If looking
    moves a hand or teaches the policy something, a refused store costs other pages their place. Two policies go through
    the same uses and stores here, and one is looked at all the time. Look at what victims() writes to.
    """
    from gaugeblock.fixtures.targets.policy_bench import PolicyBench
    from gaugeblock.reference.kv.policies import POLICIES

    evicted = remembered = 0
    for name in POLICIES:
        for seed in SEEDS:
            looked, left = PolicyBench(name), PolicyBench(name)
            for step in looked.workout(seed, STEPS):
                if step % 2:
                    remembered += _look(looked, step // 2)
            for _ in left.workout(seed, STEPS):
                pass
            assert looked.held == left.held, (
                f"{name}, seed {seed}: looked at all the time it holds {sorted(looked.held)}, else {sorted(left.held)}"
            )
            orders = looked.order(), left.order()
            assert orders[0] == orders[1], (
                f"{name}, seed {seed}: looked at all the time its order is {orders[0]}, else {orders[1]}"
            )
            evicted += left.evicted
    runs = len(POLICIES) * len(SEEDS)
    assert evicted > 5 * runs, f"{evicted} pages were evicted in {runs} runs: nothing was checked"
    assert remembered > 5 * runs, f"{remembered} looks for a key that was evicted before: nothing was checked"
    record_property("evidence", f"{runs} pairs of runs, {evicted} evictions, {remembered} looks for evicted keys")


def _look(bench: PolicyBench, step: int) -> bool:
    """Look at all victims or at one, for anybody or for an evicted key; tell whether it was for such a key."""
    incoming = bench.gone[step % len(bench.gone)] if bench.gone and step % 2 else None
    first = bench.order(incoming)
    next(bench.policy.victims(incoming), None)
    again = bench.order(incoming)
    assert again == first, f"{bench.name}: the order was {first}, and {again} when it was asked for again"
    return incoming is not None
