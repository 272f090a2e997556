"""A radix tree over prompts that remembers which worker has seen which prefix, within a bound of bytes."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

NODE_COST = 700  # bytes of one node beside its edge: object, two dicts, its place in the recency list (tracemalloc)


@dataclass(eq=False, slots=True)
class Node:
    """``edge`` leads here from ``parent``; every worker of a node has seen the whole prefix that ends here."""

    edge: bytes
    parent: Node | None
    children: dict[int, Node] = field(default_factory=dict)  # by the first byte of their edge
    workers: set[str] = field(default_factory=set)


class PrefixTree:
    """Longest-prefix matches by worker. The least recently used leaf goes first when ``max_bytes`` is passed."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self._root = Node(b"", None)
        self._recency: OrderedDict[Node, None] = OrderedDict()  # a parent is always newer than its children

    def __len__(self) -> int:
        return len(self._recency)

    def match(self, key: bytes) -> dict[str, int]:
        """Return how many leading bytes of ``key`` each worker has seen; workers without a match are left out."""
        found: dict[str, int] = {}
        node, depth = self._root, 0
        while depth < len(key):
            child = node.children.get(key[depth])
            if child is None:
                break
            same = common_prefix(child.edge, key, depth)
            depth += same
            for worker in child.workers:
                found[worker] = depth
            if same < len(child.edge):
                break
            node = child
        return found

    def insert(self, key: bytes, worker: str) -> None:
        """Remember that ``worker`` has seen ``key``, and evict down to the bound."""
        if len(key) + NODE_COST > self.max_bytes:
            return
        node, depth = self._root, 0
        while depth < len(key):
            child = node.children.get(key[depth])
            if child is None:
                child = self._add(node, key[depth:])
            same = common_prefix(child.edge, key, depth)
            if same < len(child.edge):
                child = self._split(child, same)
            child.workers.add(worker)
            node, depth = child, depth + same
        self._touch(node)
        while self.bytes > self.max_bytes:
            self._remove(next(iter(self._recency)))

    def forget(self, worker: str) -> None:
        """Drop a worker from all prefixes, and the prefixes that nobody has any more."""
        for node in list(self._recency):  # oldest first: leaves before their parents
            node.workers.discard(worker)
            if not node.workers and not node.children:
                self._remove(node)

    def _add(self, parent: Node, edge: bytes) -> Node:
        node = Node(edge, parent)
        parent.children[edge[0]] = node
        self._recency[node] = None
        self.bytes += len(edge) + NODE_COST
        return node

    def _split(self, node: Node, at: int) -> Node:
        """Put a new node in the middle of an edge and return it."""
        parent = node.parent
        assert parent is not None
        middle = self._add(parent, node.edge[:at])
        middle.workers = set(node.workers)
        middle.children[node.edge[at]] = node
        self.bytes -= at
        node.edge, node.parent = node.edge[at:], middle
        return middle

    def _touch(self, node: Node) -> None:
        while node.parent is not None:  # deepest first, so that a parent ends newer than its children
            self._recency.move_to_end(node)
            node = node.parent

    def _remove(self, leaf: Node) -> None:
        assert leaf.parent is not None
        assert not leaf.children, "a parent must be newer than its children"
        del leaf.parent.children[leaf.edge[0]]
        del self._recency[leaf]
        self.bytes -= len(leaf.edge) + NODE_COST


def common_prefix(edge: bytes, key: bytes, start: int) -> int:
    """Return the length of the common prefix of ``edge`` and ``key[start:]``, by bisection over memory compares."""
    if key.startswith(edge, start):
        return len(edge)
    low, high = 0, min(len(edge), len(key) - start)
    while low < high:
        middle = (low + high + 1) // 2
        if key[start + low : start + middle] == edge[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
