"""What an eviction policy is worth on a trace: hit rates without tensors, and what no policy can exceed."""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

from gaugeblock.reference.kv.pages import KVError
from gaugeblock.reference.kv.policies import Policy

NEVER = 2**62  # a next use that does not come


@dataclass(frozen=True)
class Accesses:
    """A trace as numbers: ``order`` is the blocks in order of use, as indices into ``keys`` and ``sizes`` (bytes)."""

    order: array[int]
    keys: list[bytes]
    sizes: array[int]

    @staticmethod
    def of(blocks: Iterable[tuple[Hashable, int]]) -> Accesses:
        """Number the blocks of a sequence of (name, size in bytes).

        Raises:
            ValueError: a size below 1, or a block that comes back with another size.
        """
        numbers: dict[Hashable, int] = {}
        order, keys, sizes = array("i"), list[bytes](), array("q")
        for name, size in blocks:
            number = numbers.setdefault(name, len(keys))
            if number == len(keys):
                if size < 1:
                    raise ValueError(f"block {name!r} has {size} bytes")
                keys.append(name if isinstance(name, bytes) else repr(name).encode())
                sizes.append(size)
            elif sizes[number] != size:
                raise ValueError(f"block {name!r} has {sizes[number]} bytes first and {size} later")
            order.append(number)
        return Accesses(order, keys, sizes)

    @property
    def unique_bytes(self) -> int:
        """Bytes of all different blocks: the capacity at which nothing is ever evicted."""
        return sum(self.sizes)

    @property
    def ceiling(self) -> float:
        """The hit rate with room for everything: only first uses miss."""
        return 1 - len(self.keys) / len(self.order) if self.order else 0.0


@dataclass(frozen=True)
class Replayed:
    """What came of a replay, counted in blocks."""

    accesses: int
    hits: int
    evicted: int
    bypassed: int  # blocks larger than the tier

    @property
    def hit_rate(self) -> float:
        """Hits / accesses."""
        return self.hits / self.accesses if self.accesses else 0.0


def replay(trace: Accesses, policy: Policy, capacity: int) -> Replayed:
    """Run a trace through a tier of ``capacity`` bytes in which every missing block is stored after room was made.

    A block's number serves as its page. Blocks larger than the tier are not stored.

    Raises:
        KVError: the policy names no victim although the tier is full, or one that it does not hold.
    """
    add, touch, remove, victims = policy.add, policy.touch, policy.remove, policy.victims
    keys, sizes = trace.keys, trace.sizes
    held = bytearray(len(keys))
    free, hits, evicted, bypassed = capacity, 0, 0, 0
    for page in trace.order:
        if held[page]:
            hits += 1
            touch(page)
            continue
        size = sizes[page]
        if size > capacity:
            bypassed += 1
            continue
        while free < size:
            victim = next(victims(keys[page]), None)
            if victim is None or not held[victim]:
                raise KVError(f"{size - free} bytes are missing and the policy's victim is {victim}, which is not held")
            held[victim] = 0
            free += sizes[victim]
            evicted += 1
            remove(victim, evicted=True)
        free -= size
        held[page] = 1
        add(page, keys[page], size)
    return Replayed(len(trace.order), hits, evicted, bypassed)


def belady(trace: Accesses, capacity: int) -> Replayed:
    """Run a trace through a tier that evicts what is used again latest, which takes knowing the future.

    Belady, "A Study of Replacement Algorithms for a Virtual-Storage Computer" (1966). With blocks of one size no policy
    that stores every missing block has more hits. With unequal sizes it is a good policy and no bound (the best one is
    NP-hard to find): :func:`bound` is one.
    """
    coming = next_uses(trace)
    held = bytearray(len(trace.keys))
    following = array("q", bytes(8 * len(trace.keys)))  # block -> its next use
    latest: list[tuple[int, int]] = []  # heap of (-next use, block); entries of uses gone by are skipped
    free, hits, evicted, bypassed = capacity, 0, 0, 0
    for now, page in enumerate(trace.order):
        size = trace.sizes[page]
        if held[page]:
            hits += 1
        elif size > capacity:
            bypassed += 1
            continue
        else:
            while free < size:
                negative, victim = heapq.heappop(latest)
                if held[victim] and following[victim] == -negative:
                    held[victim] = 0
                    free += trace.sizes[victim]
                    evicted += 1
            free -= size
            held[page] = 1
        following[page] = coming[now]
        heapq.heappush(latest, (-coming[now], page))
    return Replayed(len(trace.order), hits, evicted, bypassed)


def bound(trace: Accesses, capacity: int) -> float:
    """Return a hit rate that no policy exceeds, whatever the sizes: bytes x time, spent on the cheapest hits.

    A hit keeps its block's bytes occupied since the use before, and a tier of C bytes has C bytes to give at each of N
    accesses. The hits that occupy least fit in first. PFOO-U of Berger, Beckmann and Harchol-Balter, "Practical Bounds
    on Optimal Caching with Variable Object Sizes" (SIGMETRICS 2018).
    """
    costs = []
    for now, later in enumerate(next_uses(trace)):
        size = trace.sizes[trace.order[now]]
        if later != NEVER and size <= capacity:
            costs.append((later - now) * size)
    left, hits = capacity * len(trace.order), 0
    for cost in sorted(costs):
        left -= cost
        if left < 0:
            break
        hits += 1
    return hits / len(trace.order) if trace.order else 0.0


def next_uses(trace: Accesses) -> Sequence[int]:
    """Return for each access when its block is used next, :data:`NEVER` if it is not."""
    coming = array("q", bytes(8 * len(trace.order)))
    seen = array("q", [NEVER]) * len(trace.keys)
    for now in range(len(trace.order) - 1, -1, -1):
        page = trace.order[now]
        coming[now] = seen[page]
        seen[page] = now
    return coming
