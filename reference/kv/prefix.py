"""The prefix index: a tree of full pages by chained key. Who holds a page is the manager's business."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from gaugeblock.reference.kv.pages import KVError
from gaugeblock.reference.kv.policies import Policy


@dataclass
class Node:
    """One indexed page. ``parent`` is the key before it, or a root key."""

    key: bytes
    parent: bytes
    page: int
    children: int = 0


class PrefixIndex:
    """Nodes by key and by page. Every node's parent is a node or a root. ``policy`` orders the device pages.

    ``page_bytes``: what every page weighs, for policies that care.
    """

    def __init__(self, policy: Policy, page_bytes: int) -> None:
        self.policy = policy
        self._page_bytes = page_bytes
        self._nodes: dict[bytes, Node] = {}
        self._by_page: dict[int, Node] = {}

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

    def touch(self, keys: Sequence[bytes]) -> None:
        """Mark the nodes of a chain as used now, the first one last: children go before their parents."""
        for key in reversed(keys):
            if key in self._nodes:
                self.policy.touch(self._nodes[key].page)

    def insert(self, key: bytes, parent: bytes, page: int, *, first: bool) -> None:
        """Index a page; ``first`` says that its parent is a root.

        Raises:
            KVError: the key or the page is indexed already, or the parent is not.
        """
        if key in self._nodes or page in self._by_page:
            raise KVError(f"page {page} or its key is indexed already")
        if not first:
            if parent not in self._nodes:
                raise KVError(f"page {page} would be an orphan: its parent is not indexed")
            self._nodes[parent].children += 1
        node = Node(key, parent, page)
        self._nodes[key] = node
        self._by_page[page] = node
        self.policy.add(page, key, self._page_bytes)

    def victims(self, count: int, evictable: Callable[[int], bool]) -> list[Node]:
        """Choose up to ``count`` nodes to evict, in the policy's order; a parent only after its children.

        Changes nothing. ``evictable(page)`` says whether nobody holds the page.
        """
        left: dict[bytes, int] = {}  # children of a node once the chosen ones are gone
        passed: set[bytes] = set()  # their turn came before that of their children
        chosen: list[Node] = []
        for page in self.policy.victims():
            node = self._by_page[page]
            if not evictable(page):
                continue
            if left.get(node.key, node.children):
                passed.add(node.key)
                continue
            while len(chosen) < count:
                chosen.append(node)
                parent = self._nodes.get(node.parent)
                if parent is None:
                    break
                left[parent.key] = left.get(parent.key, parent.children) - 1
                if left[parent.key] or parent.key not in passed:
                    break
                node = parent
            if len(chosen) == count:
                break
        return chosen

    def remove(self, node: Node, *, evicted: bool) -> None:
        """Take a leaf out of the index: to make room, or because it is not valid any more.

        Raises:
            KVError: it has children, or it is not indexed.
        """
        if self._nodes.get(node.key) is not node:
            raise KVError(f"page {node.page} is not indexed")
        if node.children:
            raise KVError(f"page {node.page} has {node.children} children, which would be orphans")
        del self._nodes[node.key]
        del self._by_page[node.page]
        self.policy.remove(node.page, evicted=evicted)
        if node.parent in self._nodes:
            self._nodes[node.parent].children -= 1

    def recount(self) -> None:
        """Raise :class:`KVError` if a child counter or a parent link is wrong, or the policy orders other pages."""
        children = dict.fromkeys(self._nodes, 0)
        for node in self._nodes.values():
            if node.parent in children:
                children[node.parent] += 1
            if self._by_page.get(node.page) is not node:
                raise KVError(f"page {node.page} is filed under another node")
        for key, count in children.items():
            if self._nodes[key].children != count:
                raise KVError(f"page {self._nodes[key].page} counts {self._nodes[key].children} children, has {count}")
        if len(self._by_page) != len(self._nodes):
            raise KVError(f"{len(self._by_page)} pages for {len(self._nodes)} nodes")
        if sorted(self.policy.victims()) != sorted(self._by_page):
            raise KVError(f"the policy orders other pages than the {len(self._by_page)} that are indexed")
