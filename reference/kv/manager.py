"""The KV manager: owns every refcount and ties pool, prefix index, the tiers below and bytes together.

A page's life: free → held by a sequence → indexed once it is full and computed (still held) → idle when its last holder
leaves → held again by the next hit, or evicted (copied to the tiers below) and free again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from gaugeblock.reference.kv.keys import chain_keys, page_key, space_key
from gaugeblock.reference.kv.offload import Offload
from gaugeblock.reference.kv.pages import KVError, PagePool
from gaugeblock.reference.kv.payload import Payload
from gaugeblock.reference.kv.policies import POLICIES
from gaugeblock.reference.kv.prefix import Node, PrefixIndex
from gaugeblock.reference.kv.storage import KVStorage


@dataclass(eq=False)
class Allocation:
    """The pages of one sequence, in order. The first ``len(keys)`` are indexed; ``hit_tokens`` came from a cache.

    ``root`` is the key before the first. ``behind`` pages came before ``pages[0]`` and were given back (see
    :meth:`KVManager.release_behind`).
    """

    pages: list[int]
    root: bytes
    keys: list[bytes] = field(default_factory=list)
    hit_tokens: int = 0
    behind: int = 0


class KVManager:
    """Pages for sequences: begin, extend, commit, release.

    ``root`` is the key of the model and layout (:func:`~gaugeblock.reference.kv.keys.root_key`). ``policy`` orders the
    device's idle pages; ``offload`` takes what is evicted.
    """

    def __init__(
        self,
        storage: KVStorage,
        num_pages: int,
        root: bytes,
        offload: Offload,
        *,
        policy: str = "lru",
        prefix_cache: bool = True,
    ) -> None:
        self.storage = storage
        self.page_size = storage.shape.page_size
        self.pool = PagePool(num_pages)
        page_bytes = storage.shape.page_bytes
        self.root = root
        self.index = PrefixIndex(POLICIES[policy](num_pages * page_bytes), page_bytes)
        self.offload = offload
        self.prefix_cache = prefix_cache
        self.evicted = 0
        self.promoted = 0
        self._live: set[Allocation] = set()

    def pages_for(self, tokens: int) -> int:
        """Return how many pages ``tokens`` tokens take."""
        return -(-tokens // self.page_size)

    def begin(
        self, tokens: Sequence[int], hit_limit: int, spare: int = 0, *, adapter: str = "", salt: str = ""
    ) -> Allocation | None:
        """Hold pages for all of ``tokens``, reusing cached ones for at most the first ``hit_limit`` tokens.

        Only pages of the same ``adapter`` and ``salt`` are reused. Returns None, with nothing changed, if that would
        leave fewer than ``spare`` free or idle pages.
        """
        root = space_key(self.root, adapter=adapter, salt=salt)
        keys = chain_keys(root, tokens[:hit_limit], self.page_size) if self.prefix_cache else []
        nodes = self.index.match(keys)
        fresh = self.pages_for(len(tokens)) - len(nodes)
        waking = sum(self.pool.refs[node.page] == 0 for node in nodes)
        if fresh + waking + spare > self.pool.free + self.pool.idle:
            return None
        for node in nodes:  # held before anything is evicted, so that no hit is a victim
            self.pool.retain(node.page)
        rest = keys[len(nodes) :]
        promoted = self.offload.load(rest) if rest else []  # taken before an eviction can push them out
        allocation = Allocation([node.page for node in nodes], root, [node.key for node in nodes])
        self._live.add(allocation)
        try:
            allocation.pages += self._allocate(fresh)
            self._promote(allocation, list(zip(rest, promoted, strict=False)))
        except Exception:  # the device that pages are copied from or to
            self.release(allocation)
            raise
        self.index.touch(allocation.keys)
        allocation.hit_tokens = len(allocation.keys) * self.page_size
        return allocation

    def extend(self, allocation: Allocation, tokens: int) -> bool:
        """Hold pages for ``tokens`` tokens in all; return False, with nothing changed, if there are not enough."""
        missing = self.pages_for(tokens) - allocation.behind - len(allocation.pages)
        if missing > self.pool.free + self.pool.idle:
            return False
        if missing > 0:
            allocation.pages += self._allocate(missing)
        return True

    def commit(self, allocation: Allocation, tokens: Sequence[int], computed: int) -> None:
        """Index the pages that the first ``computed`` tokens fill. One that is indexed already takes over from ours."""
        if not self.prefix_cache:
            return
        for i in range(len(allocation.keys), computed // self.page_size):
            parent = allocation.keys[-1] if allocation.keys else allocation.root
            key = page_key(parent, tokens[i * self.page_size : (i + 1) * self.page_size])
            node = self.index.get(key)
            if node is None:
                self.index.insert(key, parent, allocation.pages[i], first=parent == allocation.root)
            else:
                self.pool.retain(node.page)
                self._drop(allocation.pages[i])
                allocation.pages[i] = node.page
            allocation.keys.append(key)

    def release(self, allocation: Allocation) -> None:
        """Let go of a sequence's pages: the indexed ones stay cached, the others are free.

        Raises:
            KVError: it was released before.
        """
        if allocation not in self._live:
            raise KVError(f"double free of an allocation of {len(allocation.pages)} pages")
        self._live.remove(allocation)
        self.index.touch(allocation.keys)
        for page in reversed(allocation.pages):
            self._drop(page)

    def release_behind(self, allocation: Allocation, tokens: int) -> None:
        """Let go of the pages that lie wholly before position ``tokens``; they are free at once.

        Raises:
            KVError: some of the sequence's pages are indexed. The index offers a page to others with all that come
                before it, so none of those can go while a later one is held.
        """
        if allocation.keys:
            raise KVError(f"{len(allocation.keys)} pages of a sequence that slides its window are indexed")
        count = max(0, min(tokens // self.page_size - allocation.behind, len(allocation.pages)))
        for page in allocation.pages[:count]:
            self._drop(page)
        del allocation.pages[:count]
        allocation.behind += count

    def flush(self) -> bool:
        """Forget all cached pages, on every tier. Returns False and changes nothing while a sequence is live.

        Raises:
            KVError: the disk does not answer; the device has forgotten nothing then.
        """
        if self._live:
            return False
        self.offload.clear()
        self.forget()
        return True

    def forget(self) -> None:
        """Forget the device's cached pages that no sequence holds; the tiers below keep theirs."""
        for node in self.index.victims(len(self.index), self._is_idle):
            self.index.remove(node, evicted=False)
            self.pool.reclaim(node.page)

    def reset(self) -> None:
        """Let go of what all sequences hold and forget the device's cached pages; the tiers below keep theirs.

        Raises:
            KVError: the pages do not add up afterwards: a call broke off between two of them.
        """
        for allocation in list(self._live):
            self.release(allocation)
        self.forget()
        self.recount()

    def prefetch(self, requests: Sequence[tuple[Sequence[int], str]]) -> None:
        """Bring what the next requests will need nearer, in the order of their turn. Each: its tokens and its salt."""
        if self.prefix_cache:
            chains = [chain_keys(space_key(self.root, salt=s), t, self.page_size) for t, s in requests]
            self.offload.prefetch([keys[len(self.index.match(keys)) :] for keys in chains])

    def close(self, *, keep: bool = True) -> None:
        """Store what is cached in the tiers below and let go of them: with a disk, the next manager finds it.

        Without ``keep`` only what is there already stays.
        """
        try:
            if keep and self.offload.disk is not None:
                cached = self.index.victims(len(self.index), lambda page: True)
                self.offload.save(self._payload(node) for node in cached if self.offload.lacks(node.key))
        finally:
            self.offload.close()

    def recount(self) -> None:
        """Count everything again from the live allocations.

        Raises:
            KVError: a refcount, the free list, the index or the host tier disagrees.
        """
        refs = [0] * self.pool.total
        for allocation in self._live:
            for page in allocation.pages:
                refs[page] += 1
        if refs != self.pool.refs:
            wrong = [(p, self.pool.refs[p], refs[p]) for p in range(self.pool.total) if refs[p] != self.pool.refs[p]]
            raise KVError(f"refcounts differ (page, counter, actual): {wrong[:5]}")
        for page in range(self.pool.total):
            kept = refs[page] > 0 or self.index.holds_page(page)
            if kept == self.pool.is_free(page):
                raise KVError(f"page {page} is {'kept and free' if kept else 'leaked: neither kept nor free'}")
        self.index.recount()
        self.offload.recount()

    def _is_idle(self, page: int) -> bool:
        return self.pool.refs[page] == 0

    def _drop(self, page: int) -> None:
        if self.pool.release(page) == 0 and not self.index.holds_page(page):
            self.pool.reclaim(page)

    def _allocate(self, count: int) -> list[int]:
        if count > self.pool.free:
            self._evict(count - self.pool.free)
        return self.pool.allocate(count)

    def _evict(self, count: int) -> None:
        victims = self.index.victims(count, self._is_idle)
        self.offload.store([self._payload(node) for node in victims if self.offload.lacks(node.key)])
        for node in victims:
            self.index.remove(node, evicted=True)
            self.pool.reclaim(node.page)
            self.evicted += 1

    def _payload(self, node: Node) -> Payload:
        return Payload(node.key, node.parent, self.storage.read_page(node.page))

    def _promote(self, allocation: Allocation, pages: list[tuple[bytes, Tensor]]) -> None:
        for key, data in pages:
            page = allocation.pages[len(allocation.keys)]
            self.storage.write_page(page, data)
            parent = allocation.keys[-1] if allocation.keys else allocation.root
            self.index.insert(key, parent, page, first=not allocation.keys)
            allocation.keys.append(key)
            self.promoted += 1
