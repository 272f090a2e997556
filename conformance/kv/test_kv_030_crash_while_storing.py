"""KV-030."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.inprocess_disk import DiskBench


@check(
    "KV-030",
    feature="kv-disk-tier",
    bound="exact, in every state that the modelled disk may be left in: each block of 4 KiB and each name may survive",
    sources=(
        "https://github.com/zeek/zeek/pull/1817",
        "https://github.com/dolthub/doltlite/pull/509",
        "https://github.com/apache/horaedb/issues/394",
        "https://github.com/dingodb/DingoCache/pull/82",
    ),
)
def test_kv_030(kv_disk: DiskBench, record_property: Callable[[str, object], None]) -> None:
    """A crash while pages are stored loses nothing that was reported, and leaves no wrong byte

    The machine goes down at every IO step of storing a batch. Afterwards each lookup is a miss or exact bytes, the
    batch is there as a whole or not at all, and nothing is left over. Look at the order: write, fsync, rename, fsync of
    the folder, commit of the index.
    """
    from gaugeblock.fixtures.crash_runs import enumerate_crashes

    report = enumerate_crashes([("put", "a")], [("put", "bc")])
    assert report.stored, f"in none of {report.states} states the batch was stored: nothing was checked"
    assert report.not_stored, f"in none of {report.states} states the batch was lost: nothing was checked"
    record_property("evidence", f"{report.points} crash points, {report.states} different states opened")
