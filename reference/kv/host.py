"""The host tier: pages in memory, within a budget of bytes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from torch import Tensor

from gaugeblock.reference.kv.pages import KVError
from gaugeblock.reference.kv.payload import Payload
from gaugeblock.reference.kv.policies import Policy
from gaugeblock.reference.kv.table import PageTable
from gaugeblock.reference.kv.tier import Lookup, NewPage, Tier

HOST_BIT = 1


class HostTier:
    """Pages by key. ``capacity`` in bytes; 0 keeps nothing. Tensors are kept as they are and handed out uncopied."""

    def __init__(
        self, capacity: int, policy: Policy, table: PageTable, quotas: Mapping[str, int] | None = None
    ) -> None:
        self.index = Tier("host", capacity, policy, table, HOST_BIT, quotas)
        self._data: dict[bytes, Payload] = {}

    def __len__(self) -> int:
        return len(self._data)

    def __contains__(self, key: bytes) -> bool:
        return key in self._data

    def store(self, payload: Payload) -> list[Payload] | None:
        """Keep a page. Returns what was evicted for it, or None if it cannot be kept (then nothing changed)."""
        says = self.index.lookup(payload.key)
        if says is not Lookup.MISS:
            return []
        evicted = self.reserve([payload.page])
        if evicted is not None:
            self.fill(payload)
        return evicted

    def reserve(self, pages: Sequence[NewPage], keep: Collection[bytes] = ()) -> list[Payload] | None:
        """Take room for pages that will be filled later, not at the cost of ``keep``; like :meth:`store` otherwise."""
        plan = self.index.prepare_store(pages, keep)
        return None if plan is None else [self._data.pop(key) for key in plan.evicted]

    def fill(self, payload: Payload) -> None:
        """Bring the bytes of a page that has its room."""
        self.index.complete_store([payload.key])
        self._data[payload.key] = payload

    def give_up(self, key: bytes) -> None:
        """Return the room of a page whose bytes did not come."""
        self.index.complete_store([key], stored=False)

    def load(self, key: bytes) -> Tensor | None:
        """Return the bytes of a key, or None."""
        payload = self._data.get(key)
        return None if payload is None else payload.data

    def payloads(self) -> list[Payload]:
        """Return everything that is here, oldest first."""
        return list(self._data.values())

    def clear(self) -> None:
        """Forget everything that has arrived."""
        for key in self.index.clear():
            del self._data[key]

    def recount(self) -> None:
        """Count everything from scratch.

        Raises:
            KVError: a counter is wrong, or the bytes are not those of the index.
        """
        self.index.recount()
        actual = sum(payload.data.nbytes for payload in self._data.values())
        if set(self._data) != set(self.index.keys()):
            raise KVError(f"host tier: {len(self._data)} pages in memory, {len(self.index.keys())} in the index")
        if actual > self.index.capacity:
            raise KVError(f"host tier: {actual} bytes in memory, capacity {self.index.capacity}")
