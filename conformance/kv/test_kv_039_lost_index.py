"""KV-039."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.inprocess_disk import DiskBench


@check(
    "KV-039",
    feature="kv-disk-tier",
    bound="exact",
    level="extended",
    sources=("https://github.com/milvus-io/talon/issues/114", "https://github.com/learningequality/kolibri/pull/6511"),
)
def test_kv_039(kv_disk: DiskBench, record_property: Callable[[str, object], None]) -> None:
    """A lost or broken index is made again from the pages that verify

    The files say all that the index knows but their order, and parents come before children again. Look at what opening
    does with page files when there is no index, or one that is not a database.
    """
    from gaugeblock.fixtures.disk_damage import FLIPS
    from gaugeblock.fixtures.targets.inprocess_disk import disk_call

    kv_disk.filled("abcd")
    index = kv_disk.folder / "index.sqlite"
    for what in ("lost", "not a database", "cut", "damaged"):
        kv_disk.close()
        good = index.read_bytes()
        if what == "lost":
            index.unlink()
        else:
            wrong = {
                "not a database": b"?" * 9000,
                "cut": good[:5000],
                "damaged": good[:4096] + b"?" * len(good[4096:]),
            }
            index.write_bytes(wrong[what])
        if what == "damaged":
            whole = kv_disk.file("d").read_bytes()
            at = FLIPS["the middle"]
            kv_disk.file("d").write_bytes(whole[:at] + b"????" + whole[at + 4 :])
        with disk_call(f"opening with an index that is {what}"):
            store = kv_disk.open()
        listed, wanted = kv_disk.listed(store), "abc" if what == "damaged" else "abcd"
        assert listed == wanted, f"with an index that is {what} the entries are {listed or 'none'} instead of {wanted}"
        found = kv_disk.found(store, "abcd")
        assert found == wanted, f"with an index that is {what} pages {found or 'none'} come back instead of {wanted}"
        assert store.damaged == (what == "damaged"), f"{store.damaged} damaged files are counted when it is {what}"
    record_property("evidence", "4 pages kept through a lost, a foreign, a cut and a damaged index")
