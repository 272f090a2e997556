"""KV-036."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.inprocess_disk import DiskBench


@check(
    "KV-036",
    feature="kv-disk-tier",
    bound="exact",
    sources=("https://github.com/emfdavid/insitubatch/issues/42", "https://github.com/sgl-project/sglang/pull/10969"),
)
def test_kv_036(kv_disk: DiskBench, record_property: Callable[[str, object], None]) -> None:
    """A folder belongs to one store at a time; one that died does not keep it

    Two stores on one folder delete each other's files as left over. The second is refused by name of the holder, and
    what a dead process left behind locks nobody out. Look at what the lock is: a file's existence outlives its process.
    """
    from gaugeblock.fixtures.targets.inprocess_disk import disk_call
    from gaugeblock.reference.kv.disk.errors import StoreBusy

    kv_disk.filled("ab")
    try:
        kv_disk.open()
    except StoreBusy as error:
        message = str(error)
    else:
        raise AssertionError("a second store opens a folder that is in use")
    assert str(os.getpid()) in message, f"the refusal does not name process {os.getpid()}: {message}"
    kv_disk.close()
    (kv_disk.folder / "lock").write_text("4194305")  # more than any process number: its holder is dead
    with disk_call("opening a folder whose holder is dead"):
        store = kv_disk.open()
    found = kv_disk.found(store, "ab")
    assert found == "ab", f"pages {found} of ab come back"
    record_property("evidence", f"refused: {message}")
