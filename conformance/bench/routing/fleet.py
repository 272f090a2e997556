"""The simulated workers: one prefill at a time, many decodes, and a prefix cache of their own."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from gaugeblock.fixtures.traces import BLOCK_TOKENS, TraceRequest


@dataclass(frozen=True)
class Engine:
    """What each worker can do.

    ``prefill_rate`` tokens a second, one request after the other; ``output_rate`` tokens a second for each of up to
    ``slots`` requests that decode side by side; ``cache_tokens`` is the KV kept for later requests. The defaults are of
    the order of one 80 GB card with a model of 8 B parameters.
    """

    prefill_rate: float = 10_000.0
    output_rate: float = 40.0
    slots: int = 64
    cache_tokens: int = 400_000


class PrefixCache:
    """Blocks of prompts in order of use. A block's number stands for all before it too, so a set of numbers is enough.

    The last block of a path is dropped first: without it the rest is still of use, without the first nothing is.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity  # blocks
        self._blocks: OrderedDict[int, None] = OrderedDict()

    def cached(self, blocks: Sequence[int]) -> int:
        """Return how many leading blocks are here, and use them."""
        count = next((at for at, block in enumerate(blocks) if block not in self._blocks), len(blocks))
        self._use(blocks[:count])
        return count

    def store(self, blocks: Sequence[int]) -> None:
        """Keep blocks; the least recently used ones go."""
        self._use(blocks)
        while len(self._blocks) > self._capacity:
            self._blocks.popitem(last=False)

    def _use(self, blocks: Sequence[int]) -> None:
        for block in reversed(blocks):
            self._blocks[block] = None
            self._blocks.move_to_end(block)


@dataclass
class Visit:
    """One request on its way. Times in seconds of the simulation."""

    request: TraceRequest
    arrived: float
    predicted: int = 0  # tokens that the router took for cached
    cached: int = 0  # tokens that were
    first_token: float = 0.0
    ended: float = 0.0


@dataclass
class Worker:
    """One worker: requests wait in order for the prefill, and for a slot."""

    name: str
    engine: Engine
    cache: PrefixCache
    waiting: deque[Visit] = field(default_factory=deque)
    in_flight: int = 0
    running: int = 0
    prefilling: bool = False
    requests: int = 0
    busy: float = 0.0  # seconds of prefill

    @classmethod
    def make(cls, name: str, engine: Engine) -> Worker:
        """Return a worker with an empty cache."""
        return cls(name, engine, PrefixCache(engine.cache_tokens // BLOCK_TOKENS))

    def begin(self) -> tuple[Visit, float] | None:
        """Begin the next prefill if one can begin; returns it and its seconds."""
        if self.prefilling or not self.waiting or self.running >= self.engine.slots:
            return None
        visit = self.waiting.popleft()
        tokens = visit.request.input_length
        blocks = self.cache.cached(visit.request.hash_ids)
        visit.cached = min(blocks * BLOCK_TOKENS, tokens - 1)  # the last token is always computed
        seconds = (tokens - visit.cached) / self.engine.prefill_rate
        self.prefilling, self.running, self.busy = True, self.running + 1, self.busy + seconds
        return visit, seconds

    def prefilled(self, visit: Visit) -> float:
        """End a prefill; returns the seconds of decoding that follow."""
        self.prefilling = False
        self.cache.store(visit.request.hash_ids)
        return max(0, visit.request.output_length - 1) / self.engine.output_rate

    def done(self) -> None:
        """A request has ended."""
        self.running -= 1
        self.in_flight -= 1
