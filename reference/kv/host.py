"""The host tier: copies of pages that the device evicted, within a budget of bytes."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor

from gaugeblock.reference.kv.pages import KVError


class HostTier:
    """Pages by key, least recently used first out. ``capacity`` in bytes; 0 keeps nothing."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.used = 0
        self.stored = 0
        self.loaded = 0
        self._pages: OrderedDict[bytes, Tensor] = OrderedDict()

    def __len__(self) -> int:
        return len(self._pages)

    def __contains__(self, key: bytes) -> bool:
        return key in self._pages

    def store(self, key: bytes, data: Tensor) -> bool:
        """Keep ``data`` (owned by the tier from now on) under ``key``; say whether it was kept.

        A page that is larger than the whole budget is refused and nothing changes.
        """
        size = data.nbytes
        if size > self.capacity:
            return False
        self._drop(key)
        while self.used + size > self.capacity:
            self._drop(next(iter(self._pages)))
        self._pages[key] = data
        self.used += size
        self.stored += 1
        return True

    def load(self, key: bytes) -> Tensor | None:
        """Return the bytes of a key and mark it as used, or None."""
        data = self._pages.get(key)
        if data is not None:
            self._pages.move_to_end(key)
            self.loaded += 1
        return data

    def clear(self) -> None:
        """Forget everything."""
        self._pages.clear()
        self.used = 0

    def _drop(self, key: bytes) -> None:
        data = self._pages.pop(key, None)
        if data is not None:
            self.used -= data.nbytes

    def recount(self) -> None:
        """Raise :class:`KVError` if the byte counter is wrong or above the budget."""
        actual = sum(page.nbytes for page in self._pages.values())
        if actual != self.used or actual > self.capacity:
            raise KVError(f"host tier: counter {self.used}, stored {actual}, capacity {self.capacity} bytes")
