"""KV-025."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.inprocess_tiers import TierBench, TierBenches


@check(
    "KV-025",
    feature="kv-tiers",
    bound="exact: the clock is the check's, so the disk is asked again after RETRY_SECONDS and not before",
    sources=(
        "https://github.com/vllm-project/vllm/issues/49328",
        "https://github.com/sgl-project/sglang/pull/39269",
        "https://github.com/openvstorage/alba/issues/573",
        "https://github.com/taskcluster/taskcluster/issues/8944",
    ),
)
def test_kv_025(kv_tiers: TierBenches, record_property: Callable[[str, object], None]) -> None:
    """A disk that fails costs hits for a while, and nothing of what lies on it

    A read that fails is a miss at once, or the scheduler waits for the same page for ever. It deletes nothing, and the
    disk serves again when its time is up. A disk too full to be written to, or too slow, is still read from. Look at
    what the tier says of its pages after an error, at which error stops what, and for how long.
    """
    from gaugeblock.fixtures.failing_io import FailingIO

    io = FailingIO()
    bench = kv_tiers(0, 4, io=io)
    bench.store("ab", "a")
    bench.run()
    with io.failing("open", errno.EIO):
        found = bench.load("a", "ab")
    assert io.failed, "no read failed: nothing was checked"
    assert not found, f"a load brings {found} although the read failed"
    rests(bench, "a read that failed")

    bench.worker.stuck = True
    found = bench.load("a", "ab")
    bench.worker.stuck = False
    assert not found, f"a load brings {found} although the disk did not answer in time"
    bench.run()
    rests(bench, "a read that took too long")

    failed = io.failed
    bench.store("c")
    with io.failing("open", errno.ENOSPC):
        bench.run()
    assert io.failed > failed, "no write failed: nothing was checked"
    found = bench.load("a", "ab")
    assert found == ["a", "ab"], f"a full disk cannot be read from: a load of two pages that lie on it brings {found}"
    bench.store("c")
    assert not bench.worker.jobs, "the disk is written to again right after a write that failed"

    wait(bench)
    bench.store("c", "d")
    bench.run()
    bench.store("e")  # evicts one
    with io.failing("commit", errno.EIO):
        bench.run()
    wait(bench)
    bench.store("f")
    bench.run()
    stored, files = bench.disk(), bench.files()
    assert "f" in stored, f"the disk is not written to again when its time is up: {sorted(stored)} are stored"
    assert stored == files, (
        f"the tier counts {sorted(stored)}, and {sorted(files)} take room: a delete that failed is lost"
    )
    record_property("evidence", f"{io.failed} errors and a read that took too long; every page came back")


def rests(bench: TierBench, after: str) -> None:
    """Fail unless the disk is left alone until its time is up, and then has everything."""
    from gaugeblock.reference.kv.disk_tier import RETRY_SECONDS
    from gaugeblock.reference.kv.tier import Lookup

    bench.now += RETRY_SECONDS - 0.1
    says = bench.says("a")
    assert says is Lookup.MISS, f"after {after} the page is still a {says.name}: whoever waits for it waits for ever"
    found = bench.load("a", "ab")
    assert not found, f"{RETRY_SECONDS - 0.1} s after {after} a load brings {found}"
    assert bench.disk() == {"a", "ab"}, f"{after} deleted pages: {sorted(bench.disk())} of a, ab are left"
    bench.now += 0.2
    found = bench.load("a", "ab")
    assert found == ["a", "ab"], f"{RETRY_SECONDS + 0.1} s after {after} a load brings {found} of a, ab"


def wait(bench: TierBench) -> None:
    """Let the time of a disk that failed pass."""
    from gaugeblock.reference.kv.disk_tier import RETRY_SECONDS

    bench.now += RETRY_SECONDS
