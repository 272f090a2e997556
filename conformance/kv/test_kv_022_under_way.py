"""KV-022."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import accumulate, product
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.inprocess_tiers import TierBench, TierBenches

Step = tuple[str, Callable[["TierBench"], object]]

STEPS: tuple[Step, ...] = (
    ("store a, b, c", lambda bench: bench.store("a", "b", "c")),
    ("prefetch a", lambda bench: bench.prefetch("a")),
    ("store d, e", lambda bench: bench.store("d", "e")),
    ("store f", lambda bench: bench.store("f")),
)


@check(
    "KV-022",
    feature="kv-tiers",
    bound="exact, in every interleaving of four calls with the jobs of one worker",
    sources=(
        "https://github.com/sgl-project/sglang/issues/31427",
        "https://github.com/vllm-project/vllm/issues/45704",
    ),
)
def test_kv_022(kv_tiers: TierBenches, record_property: Callable[[str, object], None]) -> None:
    """Pages that are being read or written in the background are neither evicted nor reused

    The host holds two pages and the disk three. After each call the worker does none of its jobs, or one, or two: all
    ways are tried. Look at when pins and rooms are given back, and at who may write to memory that a job still reads.
    """
    bench = kv_tiers(2, 3)
    runs = reads = writes = 0
    for pace in paces(len(STEPS)):
        where = ""
        for (what, call), jobs in zip(STEPS, pace, strict=True):
            where += f"{what}, "
            try:
                call(bench)
            except AssertionError as error:
                raise AssertionError(f"after {where}{error}") from error
            reads, writes = assert_kept(bench, where, reads, writes)
            if jobs:
                where += f"{bench.run(jobs)} jobs, "
                assert_kept(bench, where)
        bench.run()
        for name in "abcdef":
            here = name in bench.host() | bench.disk()
            found = bench.load(name)
            assert found == [name] * here, f"after {where}page {name} is {'here' if here else 'gone'} and gives {found}"
        stored, files = bench.disk(), bench.files()
        assert stored == files, f"after {where}the disk tier counts {sorted(stored)}, its store has {sorted(files)}"
        bench.reset()
        runs += 1
    assert 2 * reads > runs, f"{reads} reads were under way in {runs} runs: too few to say anything"
    record_property("evidence", f"{runs} interleavings, {writes} times a write under way and {reads} times a read")


def paces(steps: int) -> Iterator[tuple[int, ...]]:
    """Yield how many jobs the worker does after each step: up to two, and not more in all than there were steps."""
    for pace in product(range(3), repeat=steps):
        if all(done <= step for step, done in enumerate(accumulate(pace), start=1)):
            yield pace


def assert_kept(bench: TierBench, where: str, reads: int = 0, writes: int = 0) -> tuple[int, int]:
    """Fail if a page that a waiting job reads or writes is not in the disk tier; count them."""
    from gaugeblock.reference.kv.tier import Lookup

    assert bench.offload.disk is not None
    writing, reading = bench.worker.under_way()
    for keys, doing, wanted in ((writing, "written", Lookup.PENDING), (reading, "read", Lookup.HIT)):
        for key in keys:
            says = bench.offload.disk.index.lookup(key)
            assert says is wanted, f"after {where}page {bench.names[key]} is {says.name} while it is being {doing}"
    return reads + len(reading), writes + len(writing)
