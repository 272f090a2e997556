"""Least load: the worker with the fewest requests of this router in flight."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from gaugeblock.reference.router.policies.base import Decision, RequestView, Stateless, WorkerView, idlest, policy


@policy("least_load")
class LeastLoad(Stateless):
    """Counts are the router's own and so never stale."""

    def decide(self, request: RequestView, workers: Sequence[WorkerView], rng: Random, now: float) -> Decision:
        """Pick a least loaded worker, ties at random."""
        return Decision(idlest(workers, rng).id, self.name, "least_load")
