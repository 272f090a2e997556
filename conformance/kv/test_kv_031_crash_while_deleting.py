"""KV-031."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.inprocess_disk import DiskBench


@check(
    "KV-031",
    feature="kv-disk-tier",
    bound="exact, in every state that the modelled disk may be left in",
    sources=("https://github.com/LMCache/LMCache/issues/4564", "https://github.com/LMCache/LMCache/issues/2840"),
)
def test_kv_031(kv_disk: DiskBench, record_property: Callable[[str, object], None]) -> None:
    """A crash while pages are evicted or promoted brings none back and takes no other along

    A page that comes back after its eviction is not in anybody's count of bytes. Look at what opening does with a file
    that the index does not name, and with an entry that has no file.
    """
    from gaugeblock.fixtures.crash_runs import enumerate_crashes

    evict = enumerate_crashes([("put", "abc")], [("delete", "c"), ("get", "ab")])
    again = enumerate_crashes([("put", "ab"), ("damage", "b")], [("get", "ab"), ("put", "b")])
    for report, step in ((evict, "unlink"), (evict, "read_into"), (again, "unlink"), (again, "rename")):
        steps = [name for name in report.steps if name.startswith(step)]
        assert steps, f"no {step} among {report.steps}: nothing was checked"
    points, states = evict.points + again.points, evict.states + again.states
    record_property("evidence", f"{points} crash points, {states} different states opened")
