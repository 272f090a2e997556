"""A page with its bytes, and how bytes and tensors become each other."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gaugeblock.reference.kv.tier import NewPage


@dataclass(frozen=True)
class Payload:
    """The bytes of one page on their way to a tier. Nobody writes to ``data`` any more."""

    key: bytes
    parent: bytes
    data: Tensor
    owner: str = ""

    @property
    def page(self) -> NewPage:
        """What a tier has to know of it."""
        return NewPage(self.key, self.parent, self.data.nbytes, self.owner)

    @property
    def buffer(self) -> memoryview:
        """The bytes, in memory order."""
        return self.data.contiguous().view(torch.uint8).reshape(-1).numpy().data


@dataclass(frozen=True)
class PageForm:
    """Shape and dtype of a page's tensor; the store's identity covers both."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of a page."""
        return math.prod(self.shape) * self.dtype.itemsize

    def tensor(self, data: bytes) -> Tensor:
        """Return bytes as the tensor that they were.

        Raises:
            ValueError: there are too many or too few.
        """
        flat = torch.frombuffer(bytearray(data), dtype=self.dtype)
        return flat.reshape(self.shape)
