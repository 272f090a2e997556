"""KV-021."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.inprocess_tiers import TierBenches


@check(
    "KV-021",
    feature="kv-tiers",
    bound="exact",
    sources=(
        "https://github.com/sgl-project/sglang/issues/27108",
        "https://github.com/vllm-project/vllm/issues/53498",
    ),
)
def test_kv_021(kv_tiers: TierBenches, record_property: Callable[[str, object], None]) -> None:
    """A page is a hit once it is stored, and neither before nor when storing it failed

    The worker writes when it is told to, so a page is looked up before its write, after it, and after a write for which
    the disk had no room. Look at what marks a page as stored, and at what becomes of a write's error.
    """
    from gaugeblock.fixtures.failing_io import FailingIO
    from gaugeblock.reference.kv.disk_tier import RETRY_SECONDS
    from gaugeblock.reference.kv.tier import Lookup

    io = FailingIO()
    bench = kv_tiers(0, 4, io=io)
    bench.store("ab", "a")
    for name in ("a", "ab"):
        says = bench.says(name)
        assert says is Lookup.PENDING, f"page {name} is {says.name} while its write is queued"
    assert not bench.disk(), f"pages {sorted(bench.disk())} count as stored while their write is queued"
    bench.run()
    stored = {name: bench.says(name).name for name in ("a", "ab")}
    assert set(stored.values()) == {"HIT"}, f"both pages were stored, and the lookup says {stored}"
    found = bench.load("a", "ab")
    assert found == ["a", "ab"], f"both pages were stored and are hits, and a load brings {found}"

    for call in ("open", "commit"):
        bench.store("abc")
        with io.failing(call, errno.ENOSPC):
            failed = io.failed
            bench.run()
        assert io.failed > failed, f"{call} was not called: nothing was checked"
        says = bench.says("abc")
        assert says is Lookup.MISS, f"page abc is {says.name} although its write failed in {call}"
        found = bench.load("a", "ab", "abc")
        assert found == ["a", "ab"], f"a load brings {found} after the write of abc failed"
        bench.now += RETRY_SECONDS
    bench.store("abc")
    found = bench.load("a", "ab", "abc")  # waits for the write
    assert found == ["a", "ab", "abc"], f"a load while abc is being written brings {found} instead of waiting for it"
    record_property("evidence", "2 pages pending, then hits; 2 failed writes, each a miss; 1 load that waited")
