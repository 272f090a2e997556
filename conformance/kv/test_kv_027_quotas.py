"""KV-027."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.inprocess_tiers import TierBench, TierBenches

HOST, DISK = 8, 12
QUOTAS = {"ann": 3, "bob": 2}
CALLS = 60


@check(
    "KV-027",
    feature="kv-quotas",
    bound="exact",
    sources=(
        "https://github.com/LMCache/LMCache/pull/3137",
        "https://github.com/kvcache-ai/Mooncake/issues/3741",
        "https://github.com/LMCache/LMCache/pull/2984",
    ),
)
def test_kv_027(kv_tiers: TierBenches, record_property: Callable[[str, object], None]) -> None:
    """No owner holds more than its quota in any tier, and to stay below it loses its own pages alone

    Two owners with quotas and one without store and load pages in random order, and pages come ahead of need. Look at
    who is charged for a page, also when it moves between tiers, and at whose pages are victims.
    """
    bench = kv_tiers(HOST, DISK, quotas=QUOTAS)
    chance = random.Random(7)
    owners: dict[str, str] = {}
    own = 0
    for number in range(CALLS):
        owner = chance.choice(["ann", "ann", "bob", ""])
        name = chr(number + ord("0"))
        before = held(bench)
        owners[name] = owner
        bench.store(name, owner=owner)
        bench.run()
        for tier, names in held(bench).items():
            gone = before[tier] - names
            theirs = {page for page in gone if owners[page] != owner}
            capacity = HOST if tier == "host" else DISK
            full = len(before[tier]) == capacity
            assert full or not theirs, (
                f"{owner or 'nobody'} stores a page, and {', '.join(sorted(theirs))} of others leave the {tier} tier, "
                f"which holds {len(before[tier])} of {capacity} pages"
            )
            own += len(gone - theirs)
        assert_within(bench, owners, f"store {number + 1}")
        back = chance.choice(sorted(owners))
        bench.prefetch([back])
        bench.run()
        assert_within(bench, owners, f"page {back} came ahead of need")
    comes_back(kv_tiers)
    starts_again(kv_tiers)
    assert own > CALLS // 4, f"{own} pages made room for another page of their owner: nothing was checked"
    record_property("evidence", f"{CALLS} pages of 3 owners, {own} victims of their own owner, no quota exceeded")


def comes_back(kv_tiers: TierBenches) -> None:
    """Let an owner's pages leave the host, come back ahead of need, and then one more be stored."""
    bench = kv_tiers(4, DISK, quotas=QUOTAS)
    owners = dict.fromkeys("12", "bob") | dict.fromkeys("3456", "")
    for name, owner in owners.items():
        bench.store(name, owner=owner)
        bench.run()
    assert not bench.host() & {"1", "2"}, f"the host holds {sorted(bench.host())}: nothing can come back"
    bench.prefetch("12")
    bench.run()
    assert bench.host() >= {"1", "2"}, f"the host holds {sorted(bench.host())}: pages 1 and 2 did not come back"
    owners["7"] = "bob"
    bench.store("7", owner="bob")
    assert_within(bench, owners, "two pages came back and one was stored")


def starts_again(kv_tiers: TierBenches) -> None:
    """Open the tiers anew on the same folder: what an owner has on the disk still counts, and a lower quota holds."""
    owners = {"1": "bob", "2": "bob", "3": "", "4": "bob"}
    with kv_tiers.one(HOST, DISK, folder="again", quotas=QUOTAS) as bench:
        for name in "123":
            bench.store(name, owner=owners[name])
            bench.run()
    with reopened(kv_tiers, owners, QUOTAS) as bench:
        assert bench.disk() == {"1", "2", "3"}, f"after a restart the disk has {sorted(bench.disk())} of pages 1, 2, 3"
        bench.store("4", owner="bob")
        bench.run()
        assert_within(bench, owners, "a restart and one more page")
        assert "3" in bench.disk(), "to stay within its quota after a restart, bob made nobody's page leave"
    with reopened(kv_tiers, owners, {"bob": 1}) as bench:
        mine = sorted(name for name in bench.disk() if owners[name] == "bob")
        assert len(mine) == 1, f"opened with a quota of 1 page, bob has pages {mine} in the disk tier"


@contextmanager
def reopened(kv_tiers: TierBenches, names: Iterable[str], quotas: dict[str, int]) -> Iterator[TierBench]:
    """Open the tiers on the folder that they were on, for a ``with`` block."""
    with kv_tiers.one(HOST, DISK, folder="again", quotas=quotas) as bench:
        for name in names:
            bench.key(name)
        yield bench


def held(bench: TierBench) -> dict[str, set[str]]:
    """Return the pages of each tier."""
    return {"host": bench.host(), "disk": bench.disk()}


def assert_within(bench: TierBench, owners: dict[str, str], after: str) -> None:
    """Fail if somebody has more pages in a tier than its quota."""
    for tier, names in held(bench).items():
        for owner, quota in QUOTAS.items():
            mine = sorted(name for name in names if owners[name] == owner)
            assert len(mine) <= quota, f"after {after} {owner} has {len(mine)} pages in the {tier} tier, quota {quota}"
