"""Round robin: workers in the order of their ids, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from gaugeblock.reference.router.policies.base import (
    Decision,
    PolicySettings,
    RequestView,
    Stateless,
    WorkerView,
    policy,
)


@policy("round_robin")
class RoundRobin(Stateless):
    """Remembers the last worker by id and model, so that workers may come and go without skipping anyone.

    Everybody's turn is one request: weights are for the other policies.
    """

    def __init__(self, settings: PolicySettings) -> None:
        super().__init__(settings)
        self._last: dict[str | None, str] = {}

    def decide(self, request: RequestView, workers: Sequence[WorkerView], rng: Random, now: float) -> Decision:
        """Pick the first id after the last one used, around the circle."""
        ids = sorted(worker.id for worker in workers)
        last = self._last.get(request.model, "")
        return Decision(next((i for i in ids if i > last), ids[0]), self.name, "round_robin")

    def record(self, request: RequestView, decision: Decision, now: float) -> None:
        """Remember who was last. Names of models that nobody serves are bounded by starting over."""
        if len(self._last) >= 1024 and request.model not in self._last:
            self._last.clear()
        self._last[request.model] = decision.worker
