"""Power of two choices: of two workers drawn by lot, the one with less in flight.

Source: Mitzenmacher, The Power of Two Choices in Randomized Load Balancing (IEEE TPDS 2001). The theorem is about loads
that are true when they are compared; with figures polled now and then all requests of an interval herd onto one worker.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from gaugeblock.reference.router.policies.base import Decision, RequestView, Stateless, WorkerView, drawn, policy


@policy("power_of_two")
class PowerOfTwo(Stateless):
    """Counts are the router's own and so never stale."""

    def decide(self, request: RequestView, workers: Sequence[WorkerView], rng: Random, now: float) -> Decision:
        """Pick the less loaded of two different workers; equal ones by lot, as likely as their weights."""
        if len(workers) == 1:
            return Decision(workers[0].id, self.name, "only")
        one = int(rng.random() * len(workers))
        other = int(rng.random() * (len(workers) - 1))
        pair = workers[one], workers[other + (other >= one)]
        low = min(worker.pressure for worker in pair)
        return Decision(drawn([w for w in pair if w.pressure == low], rng).id, self.name, "power_of_two")
