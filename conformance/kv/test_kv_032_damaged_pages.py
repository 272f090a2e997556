"""KV-032."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.inprocess_disk import DiskBench


@check(
    "KV-032",
    feature="kv-disk-tier",
    bound="exact",
    sources=(
        "https://github.com/LMCache/LMCache/issues/4385",
        "https://github.com/sgl-project/sglang/issues/31108",
        "https://github.com/vllm-project/vllm/issues/49328",
        "https://github.com/sgl-project/sglang/pull/39269",
    ),
)
def test_kv_032(kv_disk: DiskBench, record_property: Callable[[str, object], None]) -> None:
    """A damaged, cut or foreign page file is a miss, never data, and does not stay a hit

    Bits are flipped in every field, files are cut, lengthened, swapped with another page's, another model's and a
    shorter page's. Look at what the checksum covers, and what is compared with the index.
    """
    from gaugeblock.fixtures.disk_damage import damages
    from gaugeblock.fixtures.targets.inprocess_disk import SIZE, disk_call, key_of, page_of

    store = kv_disk.filled("abc")
    count = 0
    for what, data in damages(kv_disk, "b"):
        for into in (None, memoryview(bytearray(SIZE))):
            kv_disk.file("b").write_bytes(data)
            with disk_call(f"get of a page with {what}"):
                found = store.get(key_of("b"), into)
            assert found is None, f"a page with {what} comes back as {len(found)} bytes"
            count += 1
            listed = kv_disk.listed(store)
            assert listed == "ac", f"with {what} page b is a miss, and the entries are still {listed}"
            assert not kv_disk.file("b").exists(), f"the file with {what} is kept"
            assert store.damaged == count, f"{store.damaged} damaged files are counted, {count} were met"
            with disk_call("put after damage"):
                store.delete([key_of("c")])
                store.put([page_of("b"), page_of("c")])
            found_now = kv_disk.found(store, "abc")
            assert found_now == "abc", f"after {what} pages {found_now} of abc come back"
    assert count >= 40, f"{count} damaged files were tried: nothing was checked"
    record_property("evidence", f"{count} reads of damaged files, all of them misses")
