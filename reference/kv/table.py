"""Numbers for the pages below the device, and their tree: what all tiers know together."""

from __future__ import annotations

from array import array
from typing import TypeVar

Column = TypeVar("Column", bytearray, "array[int]")


class PageTable:
    """Keys as small numbers, so that tiers and policies keep their facts in arrays: 180 bytes a page with its key.

    ``keys``, ``parents``, ``sizes`` (bytes), ``children`` and ``where`` are read by number. ``where`` has a tier's bit
    set once the page lies there whole. A page has a number from :meth:`enter` until no tier holds it any more. Children
    are counted also while their parent is nowhere, so a parent that comes back finds its count.
    """

    def __init__(self) -> None:
        self.keys: list[bytes] = []
        self.parents: list[bytes] = []
        self.sizes = array("q")
        self.children = array("i")
        self.where = bytearray()
        self.holds = bytearray()  # by how many tiers a number is used
        self.numbers: dict[bytes, int] = {}
        self._free: list[int] = []
        self._columns: list[bytearray | array[int]] = [self.where, self.holds]
        self._parentless: dict[bytes, int] = {}  # children of keys that have no number

    def column(self, column: Column) -> Column:
        """Let an empty array have an entry for every number, 0 at first; who sets one resets it when the page goes."""
        column.extend([0] * len(self.keys))
        self._columns.append(column)
        return column

    def enter(self, key: bytes, parent: bytes, size: int) -> int:
        """Return the number of a page for one more tier, a new one if no tier has it yet."""
        number = self.numbers.get(key)
        if number is None:
            number = self._new(key, parent, size)
        self.holds[number] += 1
        return number

    def leave(self, number: int) -> None:
        """One tier less holds a page; with the last one its number is free."""
        self.holds[number] -= 1
        if self.holds[number]:
            return
        key = self.keys[number]
        del self.numbers[key]
        if self.children[number]:
            self._parentless[key] = self.children[number]
        self._count(self.parents[number], -1)
        self.keys[number] = self.parents[number] = b""
        self._free.append(number)

    def recounted_children(self) -> dict[bytes, int]:
        """Count every page's children from scratch, by key."""
        counts: dict[bytes, int] = {}
        for number in self.numbers.values():
            parent = self.parents[number]
            counts[parent] = counts.get(parent, 0) + 1
        return counts

    def children_of(self, key: bytes) -> int:
        """Return the counter of a key's children, wherever the key itself is."""
        number = self.numbers.get(key)
        return self._parentless.get(key, 0) if number is None else self.children[number]

    def _new(self, key: bytes, parent: bytes, size: int) -> int:
        if self._free:
            number = self._free.pop()
            self.keys[number], self.parents[number], self.sizes[number] = key, parent, size
        else:
            number = len(self.keys)
            self.keys.append(key)
            self.parents.append(parent)
            self.sizes.append(size)
            self.children.append(0)
            for column in self._columns:
                column.append(0)
        self.numbers[key] = number
        self.children[number] = self._parentless.pop(key, 0) if self._parentless else 0
        self._count(parent, 1)
        return number

    def _count(self, parent: bytes, change: int) -> None:
        number = self.numbers.get(parent)
        if number is not None:
            self.children[number] += change
            return
        count = self._parentless.get(parent, 0) + change
        if count:
            self._parentless[parent] = count
        else:
            self._parentless.pop(parent, None)
