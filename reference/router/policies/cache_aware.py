"""Cache-aware: prefer the worker that has seen most of the prompt, unless its load costs more than that saves."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from gaugeblock.reference.router.policies.base import Decision, PolicySettings, RequestView, WorkerView, policy
from gaugeblock.reference.router.policies.prefix_tree import PrefixTree

_NEVER_BELOW = 32  # bytes, about half a page of KV: less cannot be reused anyway


@policy("cache_aware")
class CacheAware:
    """Score of a worker = matched bytes - load_cost * (its load - the lowest load); ties by load, then at random.

    One request more in the queue is taken to cost as much as recomputing ``load_cost`` bytes of prompt. A match below
    ``min_match_bytes`` and below half of the prompt counts as none, and so does part of a very short one: a greeting or
    a chat template that all prompts share must not herd them. Prefixes are scoped by model.
    """

    name: str
    reads_prompt = True
    keeps_sessions = False

    def __init__(self, settings: PolicySettings) -> None:
        self.settings = settings
        self.tree = PrefixTree(settings.cache_bytes)

    def decide(self, request: RequestView, workers: Sequence[WorkerView], rng: Random, now: float) -> Decision:
        """Pick the best score."""
        matches = self._matches(request)
        low = min(worker.load for worker in workers)
        best: list[WorkerView] = []
        best_rank = (-1e300, 0)
        for worker in workers:
            score = matches.get(worker.id, 0) - self.settings.load_cost * (worker.load - low)
            rank = (score, -worker.load)
            if rank > best_rank:
                best, best_rank = [worker], rank
            elif rank == best_rank:
                best.append(worker)
        chosen = best[0] if len(best) == 1 else rng.choice(best)
        return Decision(chosen.id, self.name, *self._why(request, workers, matches, chosen))

    def record(self, request: RequestView, decision: Decision, now: float) -> None:
        """Remember the prompt as seen by the worker."""
        if request.prompt:
            self.tree.insert(_scope(request) + request.prompt, decision.worker)

    def forget(self, worker: str) -> None:
        """Forget all prefixes of a worker."""
        self.tree.forget(worker)

    def _matches(self, request: RequestView) -> dict[str, int]:
        """Return the matched bytes of the prompt by worker, only those long enough to count."""
        if not request.prompt:
            return {}
        scope = _scope(request)
        size = len(request.prompt)
        enough = min(size, self.settings.min_match_bytes, max((size + 1) // 2, _NEVER_BELOW))
        found = self.tree.match(scope + request.prompt)
        return {worker: depth - len(scope) for worker, depth in found.items() if depth - len(scope) >= enough}

    def _why(
        self, request: RequestView, workers: Sequence[WorkerView], matches: dict[str, int], chosen: WorkerView
    ) -> tuple[str, int]:
        own = matches.get(chosen.id, 0)
        best = max((matches.get(worker.id, 0) for worker in workers), default=0)
        reason = "miss" if not best else "overflow" if own < best else "prefix"
        return reason, own // request.unit


def _scope(request: RequestView) -> bytes:
    return b"%s\x00%d\x00" % ((request.model or "").encode(errors="replace"), request.unit)
