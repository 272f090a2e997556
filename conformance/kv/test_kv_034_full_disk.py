"""KV-034."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.inprocess_disk import DiskBench

# Each call that can need room, and how many of them go well before.
STEPS = (
    ("open", 0),
    ("open", 1),
    ("write", 0),
    ("write", 4),
    ("fsync", 0),
    ("fsync", 1),
    ("rename", 0),
    ("rename", 1),
    ("fsync_dir", 0),
    ("commit", 0),
)


@check(
    "KV-034",
    feature="kv-disk-tier",
    bound="exact",
    sources=("https://github.com/dingodb/DingoCache/pull/83", "https://github.com/sgl-project/sglang/issues/27108"),
)
def test_kv_034(kv_disk: DiskBench, record_property: Callable[[str, object], None]) -> None:
    """A full disk while storing is reported, stores nothing of the batch, and leaves nothing behind

    The disk is full at each call of a batch in turn, after calls that wrote less than they were given. Look at what is
    undone when a call fails, and whether a backup that failed counts as done.
    """
    from gaugeblock.fixtures.failing_io import ShortIO
    from gaugeblock.fixtures.targets.inprocess_disk import disk_call, key_of, page_of

    io = ShortIO()
    store = kv_disk.filled("a", io)
    before = sorted(kv_disk.files())
    for call, after in STEPS:
        where = f"a disk that is full at {call} number {after + 1}"
        failed = io.failed
        with io.failing(call, errno.ENOSPC, after=after):
            reported = None
            try:
                store.put([page_of("b"), page_of("c")])
            except OSError as error:
                reported = error.errno
        assert reported == errno.ENOSPC, (
            f"{where} is reported as {reported}: None means that the batch counts as stored"
        )
        assert io.failed > failed, f"{call} was not made {after + 1} times: nothing was checked"
        listed, left = kv_disk.listed(store), sorted(kv_disk.files())
        assert listed == "a", f"{where}: the entries are {listed} although the batch bc was refused"
        assert left == before, f"{where}: {len(set(left) - set(before))} files are left over"
        found = kv_disk.found(store, "abc")
        assert found == "a", f"{where}: pages {found} come back although the batch bc was refused"
        with disk_call("put and delete with room again"):
            store.put([page_of("b"), page_of("c")])
            found = kv_disk.found(store, "abc")
            store.delete([key_of("b"), key_of("c")])
        assert found == "abc", f"after {where} there is room again, and pages {found} of abc come back"
    record_property("evidence", f"{len(STEPS)} places for a disk to be full, nothing stored and nothing left over")
