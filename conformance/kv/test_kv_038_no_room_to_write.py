"""KV-038."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.inprocess_disk import DiskBench

ERRORS = (
    ("make_dir", errno.EACCES, 0),
    ("open", errno.EROFS, 0),
    ("listdir", errno.EIO, 0),
    ("write", errno.ENOSPC, 1),
    ("commit", errno.ENOSPC, 0),
)


@check("KV-038", feature="kv-disk-tier", bound="exact", sources=("https://github.com/Blaizzy/mlx-vlm/pull/1149",))
def test_kv_038(kv_disk: DiskBench, record_property: Callable[[str, object], None]) -> None:
    """A folder that cannot be written to is refused by name, and can be used once it can

    Whoever named the folder has to learn which one and why. Look at what comes out of opening when a call fails, and
    whether the lock is given back.
    """
    from gaugeblock.fixtures.failing_io import FailingIO
    from gaugeblock.reference.kv.disk.errors import StoreUnwritable

    for call, number, after in ERRORS:
        name, io = errno.errorcode[number], FailingIO()
        with io.failing(call, number, after=after):
            try:
                kv_disk.open(io)
            except StoreUnwritable as error:
                message = str(error)
            except OSError as error:
                raise AssertionError(f"{name} of {call} at opening comes out as it is: {error}") from error
            else:
                raise AssertionError(f"{name} of {call} at opening is not reported")
        assert str(kv_disk.folder) in message, f"the refusal does not name the folder: {message}"
    found = kv_disk.found(kv_disk.filled("ab"), "ab")
    assert found == "ab", f"after {len(ERRORS)} refusals pages {found} of ab can be stored"
    record_property("evidence", f"{len(ERRORS)} refusals that name the folder")
