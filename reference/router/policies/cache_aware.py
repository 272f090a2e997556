"""Cache-aware: prefer the worker that has seen most of the prompt, unless its load costs more than that saves."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from gaugeblock.reference.router.policies.base import (
    Decision,
    PolicySettings,
    RequestView,
    WorkerView,
    drawn,
    idlest_of,
    policy,
    pressures,
)
from gaugeblock.reference.router.policies.blocks import key_of, matched_bytes
from gaugeblock.reference.router.policies.prefix_tree import PrefixTree

_NEVER_BELOW = 32  # bytes, about half a page of KV: less cannot be reused anyway


@policy("cache_aware")
class CacheAware:
    """Score of a worker = matched bytes - load_cost * (its load - the lowest load); ties by load, then at random.

    One request more in the queue is taken to cost as much as recomputing ``load_cost`` bytes of prompt. A match below
    ``min_match_bytes`` and below half of the prompt counts as none, and so does part of a very short one: a greeting or
    a chat template that all prompts share must not herd them. Prefixes are scoped by model, loads are by weight.
    """

    name: str
    reads_prompt = True
    keeps_sessions = False

    def __init__(self, settings: PolicySettings) -> None:
        self.settings = settings
        self.tree = PrefixTree(settings.cache_bytes)
        self._last: tuple[RequestView, bytes] = (RequestView(), b"")
        self._names: list[str] = []
        self._places: dict[str, int] = {}

    def decide(self, request: RequestView, workers: Sequence[WorkerView], rng: Random, now: float) -> Decision:
        """Pick the best score: an idlest worker has at least 0, so only a match can beat it."""
        loads = pressures(workers)
        low, cost = min(loads), self.settings.load_cost
        best: list[int] = []
        best_rank, own, longest = (0.0, -low), 0, 0  # what an idlest worker without a match has
        matches = self._matches(request) if request.prompt else []
        places = self._places_of(workers) if matches else {}
        for size, names in matches:
            here = [places[name] for name in names if name in places]
            if not here:
                continue
            longest = longest or size
            load = min([loads[at] for at in here])  # of workers with the same match the idlest is the best
            rank = (size - cost * (load - low), -load)
            if rank > best_rank:
                best_rank, own = rank, size
                best = [at for at in here if loads[at] == load]
        if not best:
            return Decision(idlest_of(workers, loads, rng).id, self.name, "overflow" if longest else "miss")
        chosen = drawn([workers[at] for at in sorted(best)], rng)
        return Decision(chosen.id, self.name, "prefix" if own == longest else "overflow", own // request.unit)

    def record(self, request: RequestView, decision: Decision, now: float) -> None:
        """Remember the prompt as seen by the worker."""
        if request.prompt:
            self.tree.insert(self._key(request), decision.worker)

    def forget(self, worker: str) -> None:
        """Forget all prefixes of a worker."""
        self.tree.forget(worker)

    def _matches(self, request: RequestView) -> list[tuple[int, list[str]]]:
        """Return matched bytes of the prompt and who has matched no more, longest first, only what counts."""
        prompt = request.prompt
        size = len(prompt)
        enough = min(size, self.settings.min_match_bytes, max((size + 1) // 2, _NEVER_BELOW))
        found: list[tuple[int, list[str]]] = []
        seen = 0
        for depth, workers in reversed(self.tree.levels(self._key(request))):
            matched = matched_bytes(depth, prompt)
            if matched < enough:
                break
            if workers != seen:
                found.append((matched, self.tree.named(workers & ~seen)))
                seen = workers
        return found

    def _places_of(self, workers: Sequence[WorkerView]) -> dict[str, int]:
        """Return where each worker stands in the list, which seldom changes from one request to the next."""
        names = [worker.id for worker in workers]
        if names != self._names:
            self._names, self._places = names, {name: at for at, name in enumerate(names)}
        return self._places

    def _key(self, request: RequestView) -> bytes:
        """Return the key of the prompt; what was decided last is recorded next."""
        if self._last[0] is not request:
            self._last = request, key_of(request.model, request.unit, request.prompt)
        return self._last[1]
