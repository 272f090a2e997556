"""KV-023."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.reference.kv.tier import NewPage, Tier

PAGES, SIZE = 6, 32


@check(
    "KV-023",
    feature="kv-tiers",
    bound="exact",
    sources=("https://github.com/LMCache/LMCache/issues/2942", "https://github.com/vllm-project/vllm/issues/29870"),
)
def test_kv_023(record_property: Callable[[str, object], None]) -> None:
    """Making room for a batch succeeds as a whole or changes nothing, and ends

    A tier of six pages, some of them pinned or on their way, is asked for room for one page more than it can give, and
    then for as much as it can, under every eviction policy. Look at whether victims leave before all of them are found,
    at which pages count as victims, and at what happens when there are none.
    """
    from gaugeblock.fixtures.targets.inprocess import target_call
    from gaugeblock.reference.kv.policies import POLICIES

    refused = stored = 0
    for policy in POLICIES:
        for busy in range(PAGES + 1):
            tier, free = filled(policy, busy), PAGES - busy
            before = state(tier)
            with target_call(f"{policy}: prepare_store of {free + 1} pages"):
                plan = tier.prepare_store([page(PAGES + i) for i in range(free + 1)])
            where = f"{policy}: room for {free + 1} pages where {free} of {PAGES} may go"
            changed = [name for name, was, now in zip(STATE, before, state(tier), strict=True) if was != now]
            assert plan is None, f"{where} is promised: {tier.used} bytes in a tier of {tier.capacity}"
            assert not changed, f"{where} is refused, and {', '.join(changed)} changed"
            refused += 1
            if not free:
                continue
            first = before[1][0]
            with target_call(f"{policy}: prepare_store of {free} pages"):
                plan = tier.prepare_store([page(first[0]), *(page(PAGES + i) for i in range(free - 1))])
            where = f"{policy}: room for {free - 1} new pages where {free} of {PAGES} may go"
            assert plan is not None, f"{where} is refused"
            assert first not in plan.evicted, f"{where}: a page of the same call is evicted"
            assert tier.used <= tier.capacity, f"{where}: {tier.used} bytes in a tier of {tier.capacity}"
            with target_call(f"{policy}: the recount"):
                tier.recount()
            stored += 1
    assert stored, f"{refused} calls refused, {stored} served: nothing was checked"
    record_property("evidence", f"{len(POLICIES)} policies: {refused} calls refused, nothing changed, {stored} served")


STATE = ("the pages", "the order of eviction", "the bytes used", "the table", "the count of evictions")


def state(tier: Tier) -> tuple[dict[bytes, str], list[bytes], int, list[tuple[bytes, int]], int]:
    """Return all that a refused call must leave alone; the names are in ``STATE``."""
    from gaugeblock.fixtures.targets.inprocess import target_call

    with target_call("looking at the tier"):
        table = tier.table
        return (
            {key: tier.lookup(key).value for key in table.numbers},
            [table.keys[number] for number in tier.policy.victims()],
            tier.used,
            sorted((key, table.where[number]) for key, number in table.numbers.items()),
            tier.evictions,
        )


def filled(policy: str, busy: int) -> Tier:
    """Return a full tier of which the newest pages are busy: every second one being read, the others being written."""
    from gaugeblock.reference.kv.policies import POLICIES
    from gaugeblock.reference.kv.table import PageTable
    from gaugeblock.reference.kv.tier import Tier

    tier = Tier("checked", PAGES * SIZE, POLICIES[policy](PAGES * SIZE), PageTable(), 1)
    for i in range(PAGES):
        tier.prepare_store([page(i)])
        if i < PAGES - busy or i % 2:
            tier.complete_store([page(i).key])
        if i >= PAGES - busy and i % 2:
            tier.prepare_load([page(i).key])
    return tier


def page(number: int) -> NewPage:
    """Return a page that begins a chain of its own."""
    from gaugeblock.reference.kv.tier import NewPage

    return NewPage(bytes([number]) * 32, b"", SIZE)
