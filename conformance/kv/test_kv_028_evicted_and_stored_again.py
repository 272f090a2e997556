"""KV-028."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.inprocess_tiers import TierBench, TierBenches

ORDERS = tuple(product("abc", repeat=3))


@check(
    "KV-028",
    feature="kv-tiers",
    bound="exact, in every order of three stores and at three paces of the worker",
    sources=("https://github.com/vllm-project/vllm/issues/29870",),
)
def test_kv_028(kv_tiers: TierBenches, record_property: Callable[[str, object], None]) -> None:
    """A page that is evicted and stored again before the worker got to it is there, with its bytes

    The worker then has to delete and to write the same key, and only one order is right. It is also right when a
    smaller disk is opened and the page that has to go comes back at once. Look at the order of jobs, at the order
    inside a job, and at whether a late delete asks if its page was stored again.
    """
    bench = kv_tiers(0, 2)
    again = 0
    for names in ORDERS:
        for jobs in (0, 1, 9):
            for name in "ab":
                bench.store(name)
            bench.run()
            for name in names:
                bench.store(name)
                again += stored_again(bench)
                bench.run(jobs)
            bench.run()
            where = f"a and b were there, and stores of {', '.join(names)} with {jobs} jobs done between them,"
            stored, files = bench.disk(), bench.files()
            assert stored == files, f"after {where} the tier counts {sorted(stored)}, the store has {sorted(files)}"
            for name in sorted(stored):
                found = bench.load(name)
                assert found == [name], f"after {where} page {name} is a hit, and a load of it brings {found}"
            bench.reset()
    shrinks(kv_tiers)
    assert again, "no page was stored again before it was deleted: nothing was checked"
    record_property(
        "evidence", f"{3 * len(ORDERS)} orders and paces, {again} pages stored again before they were deleted"
    )


def stored_again(bench: TierBench) -> int:
    """Return how many pages waiting jobs delete and later write."""
    jobs = [args for _, _, name, args in bench.worker.jobs if name != "get"]
    written = [{payload.key for payload in args[0]} for args in jobs]
    return sum(key in keys for i, args in enumerate(jobs) for key in args[1] for keys in written[i:])


def shrinks(kv_tiers: TierBenches) -> None:
    """Open a smaller disk: what has to go is stored again before the worker deleted it."""
    with kv_tiers.one(0, 3, folder="shrinks") as bench:
        for name in "abc":
            bench.store(name)
            bench.run()
    with kv_tiers.one(0, 2, folder="shrinks") as bench:
        for name in "abc":
            bench.key(name)
        left = bench.disk()
        assert left == {"b", "c"}, f"a disk of two pages keeps {sorted(left)} of a, b, c"
        bench.store("a")
        bench.run()
        found = bench.load("a")
        assert found == ["a"], f"page a had to go, was stored again before it went, and a load of it brings {found}"
        assert bench.files() == bench.disk(), (
            f"the tier counts {sorted(bench.disk())}, the store has {sorted(bench.files())}"
        )
