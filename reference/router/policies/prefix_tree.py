"""A radix tree over prompts that remembers which worker has seen which prefix, within a bound of bytes.

Keys are made of units of 4 bytes (:mod:`gaugeblock.reference.router.policies.blocks`); edges break between units only.
Sets of workers are integers with a bit a worker, and one list through all nodes keeps their order of use: both are many
times smaller, and faster to copy, than the sets and dictionaries that they stand for.
"""

from __future__ import annotations

from collections.abc import Iterator

UNIT = 4  # bytes
NODE_COST = 190  # bytes of one node beside its edge: object, its place among its parent's children (tracemalloc)


class Node:
    """``edge`` leads here from ``parent``; every worker of a node has seen the whole prefix that ends here."""

    __slots__ = ("children", "edge", "newer", "older", "parent", "workers")

    def __init__(self, edge: bytes, parent: Node | None, workers: int) -> None:
        self.edge = edge
        self.parent = parent
        self.workers = workers  # a bit each
        self.children: dict[bytes, Node] | None = None  # by the first unit of their edge
        self.newer = self.older = self  # neighbours in the order of use


class PrefixTree:
    """Longest-prefix matches by worker. The least recently used leaf goes first when ``max_bytes`` is passed."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self._count = 0
        self._root = Node(b"", None, 0)  # also the head of the list: its ``newer`` is the oldest node
        self._bits: dict[str, int] = {}  # a bit for each worker that was ever seen and not forgotten
        self._names: dict[int, str] = {}  # and back

    def __len__(self) -> int:
        return self._count

    def levels(self, key: bytes) -> list[tuple[int, int]]:
        """Return ``(depth, workers)`` along the path of ``key``, in bytes and bits, each deeper with fewer workers."""
        found: list[tuple[int, int]] = []
        node, depth, size = self._root, 0, len(key)
        while depth < size and node.children is not None:
            child = node.children.get(key[depth : depth + UNIT])
            if child is None:
                break
            edge = child.edge
            if not key.startswith(edge, depth):
                found.append((depth + common_prefix(edge, key, depth), child.workers))
                break
            depth += len(edge)
            found.append((depth, child.workers))
            node = child
        return found

    def match(self, key: bytes) -> dict[str, int]:
        """Return how many leading bytes of ``key`` each worker has seen; workers without a match are left out."""
        found: dict[str, int] = {}
        for depth, workers in self.levels(key):
            found |= dict.fromkeys(self.named(workers), depth)
        return found

    def named(self, workers: int) -> list[str]:
        """Return the names of a set of workers."""
        names = []
        while workers:
            rest = workers & (workers - 1)
            names.append(self._names[workers ^ rest])  # the lowest bit
            workers = rest
        return names

    def insert(self, key: bytes, worker: str) -> None:
        """Remember that ``worker`` has seen ``key``, and evict down to the bound."""
        size = len(key)
        if size + NODE_COST > self.max_bytes:
            return
        bit = self._bits.get(worker) or self._new_bit(worker)
        node, depth = self._root, 0
        while depth < size:
            children = node.children
            child = None if children is None else children.get(key[depth : depth + UNIT])
            if child is None:
                node = self._add(node, key[depth:], bit)
                break
            edge = child.edge
            if not key.startswith(edge, depth):
                child = self._split(child, common_prefix(edge, key, depth))
            if not child.workers & bit:
                child.workers |= bit
            node, depth = child, depth + len(child.edge)
        self._renew(node)
        while self.bytes > self.max_bytes:
            self._evict()

    def forget(self, worker: str) -> None:
        """Drop a worker from all prefixes, and the prefixes that nobody has any more."""
        bit = self._bits.pop(worker, 0)
        if not bit:
            return
        del self._names[bit]
        for node in list(self._nodes()):
            node.workers &= ~bit
            if not node.workers and node.parent is not None:  # nor has anybody below it: they have seen less still
                self._cut(node)

    def _new_bit(self, worker: str) -> int:
        taken = 0
        for bit in self._bits.values():
            taken |= bit
        bit = ~taken & (taken + 1)  # the lowest that is free
        self._bits[worker], self._names[bit] = bit, worker
        return bit

    def _nodes(self) -> Iterator[Node]:
        node = self._root.newer
        while node is not self._root:
            yield node
            node = node.newer

    def _add(self, parent: Node, edge: bytes, workers: int) -> Node:
        node = Node(edge, parent, workers)
        if parent.children is None:
            parent.children = {}
        parent.children[edge[:UNIT]] = node
        self.bytes += len(edge) + NODE_COST
        self._count += 1
        return node

    def _split(self, node: Node, at: int) -> Node:
        """Put a new node in the middle of an edge and return it."""
        parent = node.parent
        assert parent is not None
        middle = self._add(parent, node.edge[:at], node.workers)
        middle.children = {node.edge[at : at + UNIT]: node}
        self.bytes -= at
        node.edge, node.parent = node.edge[at:], middle
        self._renew(middle)
        return middle

    def _renew(self, node: Node) -> None:
        """Make a node the newest."""
        root = self._root
        if node is root:
            return
        node.newer.older, node.older.newer = node.older, node.newer
        node.older, node.newer = root.older, root
        root.older.newer = root.older = node

    def _evict(self) -> None:
        """Drop the oldest leaf. An older node that is no leaf goes round once more: it is used with its children."""
        node = self._root.newer
        while node.children:
            self._renew(node)
            node = self._root.newer
        self._cut(node)

    def _cut(self, node: Node) -> None:
        """Take a node out of the tree, whose children are out already or about to be."""
        parent = node.parent
        assert parent is not None
        if parent.children is not None:
            parent.children.pop(node.edge[:UNIT], None)
        node.newer.older, node.older.newer = node.older, node.newer
        self.bytes -= len(node.edge) + NODE_COST
        self._count -= 1


def common_prefix(one: bytes, other: bytes, start: int = 0, unit: int = UNIT) -> int:
    """Return the bytes of the whole units that ``one`` and ``other[start:]`` begin with, by bisection over compares."""
    low, high = 0, min(len(one), len(other) - start) // unit
    while low < high:
        middle = (low + high + 1) // 2
        if other[start + low * unit : start + middle * unit] == one[low * unit : middle * unit]:
            low = middle
        else:
            high = middle - 1
    return low * unit
