"""KV-033."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.inprocess_disk import DiskBench

ERRORS = (
    ("open", errno.EMFILE, 0),
    ("open", errno.EACCES, 0),
    ("size", errno.EIO, 0),
    ("read", errno.EIO, 0),
    ("read", errno.EINTR, 1),
    ("read_into", errno.EIO, 0),
    ("read_into", errno.EINTR, 1),
)


@check(
    "KV-033",
    feature="kv-disk-tier",
    bound="exact",
    sources=("https://github.com/sgl-project/sglang/pull/39269",),
)
def test_kv_033(kv_disk: DiskBench, record_property: Callable[[str, object], None]) -> None:
    """A read that fails deletes nothing: the page comes back when the disk does

    Too many open files, an interrupted call and a failing read say nothing about the page. Look at which errors count
    as damage, and at reads that give less than was asked for.
    """
    from gaugeblock.fixtures.failing_io import ShortIO
    from gaugeblock.fixtures.targets.inprocess_disk import SIZE, bytes_of, disk_call, key_of

    io = ShortIO()
    store = kv_disk.filled("ab", io)
    assert kv_disk.found(store, "ab") == "ab", "reads that give less than was asked for turn a page into a miss"
    for call, number, after in ERRORS:
        name = errno.errorcode[number]
        failed = io.failed
        with io.failing(call, number, after=after):
            answer: str | int | None = None
            try:
                found = store.get(key_of("a"), memoryview(bytearray(SIZE)) if call == "read_into" else None)
                answer = "a miss" if found is None else f"{len(found)} bytes"
            except OSError as error:
                answer = error.errno
        assert answer == number, f"{name} of {call} is reported as {answer}, which a later lookup contradicts"
        assert io.failed > failed, f"{call} was not made {after + 1} times: nothing was checked"
        assert kv_disk.file("a").exists(), f"{name} of {call} deleted the page's file"
        listed, damaged = kv_disk.listed(store), store.damaged
        assert listed == "ab", f"after {name} of {call} the entries are {listed} instead of ab"
        assert damaged == 0, f"{name} of {call} counts as {damaged} damaged files"
        with disk_call(f"get after {name}"):
            again = store.get(key_of("a"))
        assert again == bytes_of("a"), f"after {name} of {call} the page does not come back"
    record_property("evidence", f"{len(ERRORS)} failing reads, after each of which the page came back")
