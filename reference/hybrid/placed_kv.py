"""KV pages of which some layers lie on a second device: those whose attention runs there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor

from gaugeblock.reference.engine.errors import DeviceFault
from gaugeblock.reference.hybrid.devices import Device
from gaugeblock.reference.kv.storage import KVShape, KVStorage

T = TypeVar("T")


class PlacedKV(KVStorage):
    """The host's layers, and the device's beside them. A page is all layers: it is read and written as on the host.

    ``there`` names, for each layer on ``device``, the operator that runs its attention.

    Raises:
        PlacementError: the pages exceed the device's budget.
    """

    def __init__(self, shape: KVShape, num_pages: int, there: Mapping[int, str], device: Device) -> None:
        nbytes = shape.page_bytes * (num_pages + 1) // shape.layers  # of a layer, the page that pads with it
        needs = dict.fromkeys(there.values(), nbytes)
        device.ledger.reserve(needs)
        here = [layer for layer in range(shape.layers) if layer not in there]
        super().__init__(shape, num_pages, layers=here)
        self.device = device
        self._needs = needs
        self._first = next(iter(there.values()), "")  # whom a failing copy of a page is laid to
        self._there = self._guarded(lambda: KVStorage(shape, num_pages, layers=list(there), like=device.nothing()))

    def write(self, layer: int, slots: Tensor, k: Tensor, v: Tensor) -> None:
        """Store the K and V of some tokens; all tensors lie where the layer's pages do."""
        if layer in self._there.layers:
            self._there.write(layer, slots, k, v)
        else:
            super().write(layer, slots, k, v)

    def gather(self, layer: int, tables: Tensor) -> tuple[Tensor, Tensor]:
        """Return K and V of the pages in ``tables``, which lies where the layer's pages do, and so do they."""
        return self._there.gather(layer, tables) if layer in self._there.layers else super().gather(layer, tables)

    def read_page(self, page: int) -> Tensor:
        """Return a copy of a page on the host, [2, layers, page_size, kv_heads, head_dim].

        Raises:
            DeviceFault: the device failed.
        """
        if not self._needs:
            return super().read_page(page)
        data = torch.empty(self.shape.page_form.shape)
        data[:, self.layers] = super().read_page(page)
        data[:, self._there.layers] = self._guarded(lambda: self.device.fetch(self._there.read_page(page)))
        return data

    def write_page(self, page: int, data: Tensor) -> None:
        """Overwrite a page with what :meth:`read_page` returned.

        Raises:
            DeviceFault: the device failed.
        """
        super().write_page(page, data[:, self.layers])
        if self._needs:
            self._guarded(lambda: self._there.write_page(page, self.device.put(data[:, self._there.layers])))

    def close(self) -> None:
        """Let go of the device's pages."""
        self.device.ledger.release(self._needs)
        self._needs = {}
        self._there = KVStorage(self.shape, 0, layers=[])

    def _guarded(self, run: Callable[[], T]) -> T:
        try:
            return run()
        except Exception as error:
            raise DeviceFault(self._first, self.device.name, error) from error
