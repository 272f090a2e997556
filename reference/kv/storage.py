"""The KV bytes on the device: one tensor for K and one for V, addressed by page or by slot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gaugeblock.reference.kv.payload import PageForm


@dataclass(frozen=True)
class KVShape:
    """What one token's KV looks like. fp32."""

    layers: int
    kv_heads: int
    head_dim: int
    page_size: int

    @property
    def page_bytes(self) -> int:
        """Bytes of K and V of one page over all layers."""
        return self.page_form.nbytes

    @property
    def page_form(self) -> PageForm:
        """What :meth:`KVStorage.read_page` returns."""
        return PageForm((2, self.layers, self.page_size, self.kv_heads, self.head_dim), torch.float32)


class KVStorage:
    """``num_pages`` pages, and one page of zeros (``pad_page``) that pads block tables and is never written.

    A slot is ``page * page_size + offset``. Stored per layer as [pages + 1, page_size, kv_heads, head_dim].
    ``layers`` are those whose KV is here (default: all), ``like`` is a tensor that lies where they shall.
    """

    def __init__(
        self, shape: KVShape, num_pages: int, *, layers: Sequence[int] | None = None, like: Tensor | None = None
    ) -> None:
        self.shape = shape
        self.pad_page = num_pages
        self.layers = list(range(shape.layers) if layers is None else layers)
        like = torch.empty(0) if like is None else like
        size = (len(self.layers), num_pages + 1, shape.page_size, shape.kv_heads, shape.head_dim)
        self.k = like.new_zeros(size)
        self.v = like.new_zeros(size)
        # Views of each layer's K and V by slot and by page: a decode step of a small model is mostly calls.
        caches = list(zip(self.layers, zip(self.k, self.v, strict=True), strict=True))
        self._slots = {layer: [cache.flatten(0, 1) for cache in pair] for layer, pair in caches}
        self._pages = {layer: [cache.flatten(1) for cache in pair] for layer, pair in caches}
        self._scratch = (like.new_empty(0), like.new_empty(0))

    def write(self, layer: int, slots: Tensor, k: Tensor, v: Tensor) -> None:
        """Store the K and V of some tokens. ``slots`` [tokens] int64; ``k``, ``v`` [tokens, kv_heads, head_dim]."""
        k_slots, v_slots = self._slots[layer]
        k_slots.index_copy_(0, slots, k)
        v_slots.index_copy_(0, slots, v)

    def gather(self, layer: int, tables: Tensor) -> tuple[Tensor, Tensor]:
        """Return K and V of the pages in ``tables`` [rows, pages] as [rows, kv_heads, pages * page_size, head_dim].

        They lie in a buffer that the next call overwrites: fresh memory for every layer would cost more than the copy.
        """
        pages, shape = tables.flatten(), (len(tables), -1, self.shape.kv_heads, self.shape.head_dim)
        (k_pages, v_pages), (k_room, v_room) = self._pages[layer], self._room(len(pages))
        k = torch.index_select(k_pages, 0, pages, out=k_room).view(shape)
        v = torch.index_select(v_pages, 0, pages, out=v_room).view(shape)
        return k.transpose(1, 2), v.transpose(1, 2)

    def _room(self, pages: int) -> tuple[Tensor, Tensor]:
        """Return room for so many pages of K and of V, each [pages, values of a page]."""
        if len(self._scratch[0]) < pages:
            values = self.shape.page_size * self.shape.kv_heads * self.shape.head_dim
            with torch.inference_mode(False):  # usable inside and outside of inference mode
                self._scratch = (self.k.new_empty(2 * pages, values), self.v.new_empty(2 * pages, values))
        k, v = self._scratch
        return k[:pages], v[:pages]

    def read_page(self, page: int) -> Tensor:
        """Return a copy of a page on the host, [2, layers, page_size, kv_heads, head_dim]."""
        return torch.stack((self.k[:, page], self.v[:, page]))

    def write_page(self, page: int, data: Tensor) -> None:
        """Overwrite a page with what :meth:`read_page` returned."""
        self.k[:, page] = data[0]
        self.v[:, page] = data[1]
