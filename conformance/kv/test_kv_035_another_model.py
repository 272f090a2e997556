"""KV-035."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.inprocess_disk import DiskBench


@check(
    "KV-035",
    feature="kv-disk-tier",
    bound="exact: no file of a folder that is refused changes by a byte",
    sources=(
        "https://github.com/sgl-project/sglang/issues/33268",
        "https://github.com/sgl-project/sglang/pull/10969",
        "https://github.com/Tanguille/cluster/pull/4213",
    ),
)
def test_kv_035(kv_disk: DiskBench, record_property: Callable[[str, object], None]) -> None:
    """A folder of another model, dtype, layout, rank or version is refused and left as it is

    Pages of one identity mean nothing to another one, and deleting them would cost their owner the cache. Look at what
    the identity covers, and what opening does when it differs.
    """
    from gaugeblock.reference.kv.disk.errors import StoreMismatch
    from gaugeblock.reference.kv.keys import root_key
    from gaugeblock.reference.kv.storage import KVShape

    shape, wider = KVShape(2, 2, 4, 4), KVShape(2, 4, 4, 4)
    mine = root_key("model@1", "float32", shape).hex()
    others = {
        "another revision": root_key("model@2", "float32", shape),
        "another dtype": root_key("model@1", "bfloat16", shape),
        "another layout": root_key("model@1", "float32", wider),
        "another rank": root_key("model@1", "float32", shape, tp_rank=1, tp_size=2),
    }
    kv_disk.identity = mine
    kv_disk.filled("abc")
    kv_disk.close()

    def refused(what: str, identity: str, named: tuple[str, ...]) -> None:
        before = kv_disk.files()
        try:
            store = kv_disk.open(identity=identity)
        except StoreMismatch as error:
            message = str(error)
        else:
            found = kv_disk.found(store, "abc")
            raise AssertionError(f"a folder of {what} is opened, and pages {found or 'none'} of abc come back")
        missing = [word for word in named if word not in message]
        assert not missing, f"the refusal of {what} does not name {missing[0]!r}: {message}"
        after = kv_disk.files()
        assert after == before, f"refusing {what} changed {len(before.items() ^ after.items())} files"

    for what, root in others.items():
        refused(what, root.hex(), (mine, root.hex()))
    label = kv_disk.folder / "store.json"
    text = label.read_text()
    label.write_text(text.replace('"version": 1', '"version": 999'))
    refused("another version", mine, ("999", "version 1"))
    label.unlink()
    refused("something that is no store", mine, ("store.json", mine))
    label.write_text(text)
    found = kv_disk.found(kv_disk.open(), "abc")
    assert found == "abc", f"after the refusals pages {found} of abc come back to their owner"
    record_property("evidence", f"{len(others) + 2} folders refused and unchanged")
