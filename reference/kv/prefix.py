"""The prefix index: a tree of full pages by chained key. It orders; who holds a page is the manager's business."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from gaugeblock.reference.kv.pages import KVError


@dataclass
class Node:
    """One indexed page. ``parent`` is the key before it, or the root key. ``used`` is a logical time."""

    key: bytes
    parent: bytes
    page: int
    used: int = 0
    children: int = 0


class PrefixIndex:
    """Nodes by key and by page. Every node's parent is the root or a node."""

    def __init__(self, root: bytes) -> None:
        self.root = root
        self._nodes: dict[bytes, Node] = {}
        self._by_page: dict[int, Node] = {}
        self._clock = 0

    def __len__(self) -> int:
        return len(self._nodes)

    def __iter__(self) -> Iterator[Node]:
        return iter(self._nodes.values())

    def get(self, key: bytes) -> Node | None:
        """Return the node of a key, without counting it as used."""
        return self._nodes.get(key)

    def holds_page(self, page: int) -> bool:
        """Tell whether a page is indexed."""
        return page in self._by_page

    def match(self, keys: Iterable[bytes]) -> list[Node]:
        """Return the nodes of the longest contiguous prefix of ``keys``."""
        found: list[Node] = []
        for key in keys:
            node = self._nodes.get(key)
            if node is None:
                break
            found.append(node)
        return found

    def touch(self, keys: Iterable[bytes]) -> None:
        """Mark nodes as used now."""
        self._clock += 1
        for key in keys:
            if key in self._nodes:
                self._nodes[key].used = self._clock

    def insert(self, key: bytes, parent: bytes, page: int) -> None:
        """Index a page.

        Raises:
            KVError: the key or the page is indexed already, or the parent is not.
        """
        if key in self._nodes or page in self._by_page:
            raise KVError(f"page {page} or its key is indexed already")
        if parent != self.root:
            if parent not in self._nodes:
                raise KVError(f"page {page} would be an orphan: its parent is not indexed")
            self._nodes[parent].children += 1
        self._clock += 1
        node = Node(key, parent, page, used=self._clock)
        self._nodes[key] = node
        self._by_page[page] = node

    def victims(self, count: int, evictable: Callable[[int], bool]) -> list[Node]:
        """Choose up to ``count`` nodes to evict, least recently used leaf first; a parent only after its children.

        Changes nothing. ``evictable(page)`` says whether nobody holds the page.
        """
        left: dict[bytes, int] = {}  # children of a node once the chosen ones are gone
        heap = [(n.used, n.key) for n in self._nodes.values() if not n.children and evictable(n.page)]
        heapq.heapify(heap)
        chosen: list[Node] = []
        while heap and len(chosen) < count:
            node = self._nodes[heapq.heappop(heap)[1]]
            chosen.append(node)
            parent = self._nodes.get(node.parent)
            if parent is None:
                continue
            left[parent.key] = left.get(parent.key, parent.children) - 1
            if left[parent.key] == 0 and evictable(parent.page):
                heapq.heappush(heap, (parent.used, parent.key))
        return chosen

    def remove(self, node: Node) -> None:
        """Take a leaf out of the index.

        Raises:
            KVError: it has children, or it is not indexed.
        """
        if self._nodes.get(node.key) is not node:
            raise KVError(f"page {node.page} is not indexed")
        if node.children:
            raise KVError(f"page {node.page} has {node.children} children, which would be orphans")
        del self._nodes[node.key]
        del self._by_page[node.page]
        if node.parent != self.root:
            self._nodes[node.parent].children -= 1

    def recount(self) -> None:
        """Raise :class:`KVError` if a child counter or a parent link is wrong."""
        children = dict.fromkeys(self._nodes, 0)
        for node in self._nodes.values():
            if node.parent != self.root:
                if node.parent not in children:
                    raise KVError(f"page {node.page} is an orphan")
                children[node.parent] += 1
            if self._by_page.get(node.page) is not node:
                raise KVError(f"page {node.page} is filed under another node")
        for key, count in children.items():
            if self._nodes[key].children != count:
                raise KVError(f"page {self._nodes[key].page} counts {self._nodes[key].children} children, has {count}")
        if len(self._by_page) != len(self._nodes):
            raise KVError(f"{len(self._by_page)} pages for {len(self._nodes)} nodes")
