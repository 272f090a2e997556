"""What a policy is asked: who goes next. What a tier holds, and who may go at all, is the tier's business."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol


class Policy(Protocol):
    """The order of a tier's pages.

    Pages are numbers below a bound that grows; a number names another page once the first was removed. ``key`` names a
    page for good, for policies that remember what they evicted. Sizes in bytes, at least 1. A policy never counts
    holders and never evicts by itself: a victim has gone when :meth:`remove` says so.
    """

    def add(self, page: int, key: bytes, size: int) -> None:
        """Take in a page that was just stored."""

    def touch(self, page: int) -> None:
        """Note that a page was used."""

    def remove(self, page: int, *, evicted: bool) -> None:
        """Forget a page: it was evicted to make room, or it is gone for another reason."""

    def victims(self, incoming: bytes | None = None) -> Iterator[int]:
        """Yield pages in the order in which they should go, and change nothing.

        The tier takes those that may go and stops when it has enough. ``incoming`` is the key that needs the room, if
        it is one alone. The policy is not called while the iterator is in use.
        """
        ...
