"""Putting the tiers below the device together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from pathlib import Path
from time import monotonic

from gaugeblock.reference.kv.disk.io import FileIO
from gaugeblock.reference.kv.disk.store import DiskStore
from gaugeblock.reference.kv.disk_tier import DiskTier
from gaugeblock.reference.kv.host import HostTier
from gaugeblock.reference.kv.offload import Offload
from gaugeblock.reference.kv.pages import KVError
from gaugeblock.reference.kv.payload import PageForm
from gaugeblock.reference.kv.policies import POLICIES
from gaugeblock.reference.kv.table import PageTable


def build_offload(
    form: PageForm,
    host_bytes: int = 0,
    *,
    policy: str = "lru",
    quotas: Mapping[str, int] | None = None,
    disk: Path | None = None,
    disk_bytes: int = 0,
    identity: str = "",
    worker: Executor | None = None,
    reader: Executor | None = None,
    clock: Callable[[], float] = monotonic,
    io: FileIO | None = None,
) -> Offload:
    """Return a host tier of ``host_bytes`` over a store of ``disk_bytes`` in the folder ``disk`` (None: no disk).

    ``identity`` names what the bytes on disk depend on (the root key); ``worker`` writes and ``reader`` reads them,
    ``io`` is their file system. ``quotas`` hold for each tier.

    Raises:
        KVError: an unknown policy; a capacity that holds no page, or is negative; a folder that cannot be used.
    """
    if policy not in POLICIES:
        raise KVError(f"there is no eviction policy {policy!r}: choose one of {', '.join(POLICIES)}")
    page_bytes = form.nbytes
    if host_bytes and host_bytes < page_bytes:
        raise KVError(f"a host tier of {host_bytes} bytes holds no page of {page_bytes} bytes: 0 switches it off")
    if disk is not None and disk_bytes < page_bytes:
        raise KVError(
            f"a disk tier of {disk_bytes} bytes holds no page of {page_bytes} bytes: give it more, or no folder"
        )
    table = PageTable()
    host = HostTier(host_bytes, POLICIES[policy](host_bytes), table, quotas)
    if disk is None:
        return Offload(form, table, host)
    store = DiskStore(disk, identity, io=io)
    try:
        tier = DiskTier(
            store,
            disk_bytes,
            POLICIES[policy](disk_bytes),
            table,
            worker=worker,
            reader=reader,
            clock=clock,
            quotas=quotas,
        )
    except BaseException:
        store.close()
        raise
    return Offload(form, table, host, tier)
