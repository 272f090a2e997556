"""KV-037."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.inprocess_disk import DiskBench


@check(
    "KV-037",
    feature="kv-disk-tier",
    bound="exact",
    sources=(
        "https://github.com/vllm-project/vllm/issues/53498",
        "https://github.com/LMCache/LMCache/issues/2840",
        "https://github.com/LMCache/LMCache/issues/4564",
    ),
)
def test_kv_037(kv_disk: DiskBench, record_property: Callable[[str, object], None]) -> None:
    """Stored pages come back after a restart, in order, with their parents and sizes

    What was stored and not deleted is listed once, a parent before its children, and every listed page has its bytes.
    Look at whether every file enters the index, and what opening takes from it.
    """
    from gaugeblock.fixtures.targets.inprocess_disk import SIZE, disk_call, key_of, page_of

    store = kv_disk.filled("xy")
    with disk_call("put and delete"):
        store.put([page_of("a"), page_of("b"), page_of("b")])
        store.put([page_of("b"), page_of("c")])
        store.delete([key_of("y"), key_of("nothing")])
    for when in ("before a restart", "after a restart", "after another"):
        found = kv_disk.found(store, "abcxy")
        assert found == "abcx", f"{when} pages {found} come back instead of abcx"
        listed = kv_disk.listed(store)
        assert listed == "xabc", f"{when} the entries are {listed} instead of xabc"
        for entry, name in zip(store.entries(), listed, strict=True):
            assert entry.parent == page_of(name).parent, f"{when} page {name} has another parent"
            assert entry.size == SIZE, f"{when} page {name} has {entry.size} bytes instead of {SIZE}"
        kv_disk.close()
        with disk_call("opening"):
            store = kv_disk.open()
    record_property("evidence", "4 of 5 pages kept through 2 restarts, in order")
