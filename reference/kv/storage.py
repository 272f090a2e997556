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
        self._row = {layer: row for row, layer in enumerate(self.layers)}
        like = torch.empty(0) if like is None else like
        size = (len(self.layers), num_pages + 1, shape.page_size, shape.kv_heads, shape.head_dim)
        self.k = like.new_zeros(size)
        self.v = like.new_zeros(size)
        self._scratch = (like.new_empty(0), like.new_empty(0))

    def write(self, layer: int, slots: Tensor, k: Tensor, v: Tensor) -> None:
        """Store the K and V of some tokens. ``slots`` [tokens] int64; ``k``, ``v`` [tokens, kv_heads, head_dim]."""
        self.k[self._row[layer]].flatten(0, 1).index_copy_(0, slots, k)
        self.v[self._row[layer]].flatten(0, 1).index_copy_(0, slots, v)

    def gather(self, layer: int, tables: Tensor) -> tuple[Tensor, Tensor]:
        """Return K and V of the pages in ``tables`` [rows, pages] as [rows, kv_heads, pages * page_size, head_dim].

        They lie in a buffer that the next call overwrites: fresh memory for every layer would cost more than the copy.
        """
        k, v = (
            self._gather(cache[self._row[layer]], tables.flatten(), scratch)
            .view(tables.shape[0], -1, self.shape.kv_heads, self.shape.head_dim)
            .transpose(1, 2)
            for cache, scratch in zip((self.k, self.v), self._room(tables.numel()), strict=True)
        )
        return k, v

    def _gather(self, cache: Tensor, pages: Tensor, scratch: Tensor) -> Tensor:
        rows = scratch[: pages.shape[0] * cache[0].numel()].view(pages.shape[0], -1)
        return torch.index_select(cache.flatten(1), 0, pages, out=rows)

    def _room(self, pages: int) -> tuple[Tensor, Tensor]:
        wanted = pages * self.k[0, 0].numel()
        if self._scratch[0].numel() < wanted:
            with torch.inference_mode(False):  # usable inside and outside of inference mode
                self._scratch = (self.k.new_empty(2 * wanted), self.v.new_empty(2 * wanted))
        return self._scratch

    def read_page(self, page: int) -> Tensor:
        """Return a copy of a page on the host, [2, layers, page_size, kv_heads, head_dim]."""
        return torch.stack((self.k[:, page], self.v[:, page]))

    def write_page(self, page: int, data: Tensor) -> None:
        """Overwrite a page with what :meth:`read_page` returned."""
        self.k[:, page] = data[0]
        self.v[:, page] = data[1]
