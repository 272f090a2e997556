"""Random: every available worker is as likely as its weight says."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from gaugeblock.reference.router.policies.base import Decision, RequestView, Stateless, WorkerView, drawn, policy


@policy("random")
class RandomPick(Stateless):
    """The baseline that every other policy has to beat."""

    def decide(self, request: RequestView, workers: Sequence[WorkerView], rng: Random, now: float) -> Decision:
        """Pick a worker by lot."""
        return Decision(drawn(workers, rng).id, self.name, "random")
