"""Session affinity, layered over any base policy: a session stays with its worker while that one is available."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from random import Random
from typing import NamedTuple

from gaugeblock.reference.router.policies.base import Decision, Policy, PolicySettings, RequestView, WorkerView


class Pin(NamedTuple):
    """Where a session lives and when it was last used (seconds of the injected clock)."""

    worker: str
    used: float


class SessionAffinity:
    """Sessions are scoped by model and kept in a table bounded by size and age; a lost worker means a new pin."""

    def __init__(self, base: Policy, settings: PolicySettings) -> None:
        self.base = base
        self.name = base.name
        self.reads_prompt = base.reads_prompt
        self.keeps_sessions = True
        self.settings = settings
        self._pins: OrderedDict[tuple[str | None, str], Pin] = OrderedDict()  # least recently used first

    def __len__(self) -> int:
        return len(self._pins)

    def decide(self, request: RequestView, workers: Sequence[WorkerView], rng: Random, now: float) -> Decision:
        """Return the session's worker if it is among ``workers``; otherwise what the base policy says."""
        pin = self._pin(request, now)
        home = next((worker for worker in workers if pin and worker.id == pin.worker), None)
        if home:
            matched = self.base.decide(request, (home,), rng, now).matched
            return Decision(home.id, "session", "session", matched)
        decision = self.base.decide(request, workers, rng, now)
        return decision._replace(policy="session", reason="session_repinned") if pin else decision

    def record(self, request: RequestView, decision: Decision, now: float) -> None:
        """Pin the session to the worker that now serves it, and drop what is too old or too much."""
        self.base.record(request, decision, now)
        if request.session is None or not self.settings.max_sessions:
            return
        key = (request.model, request.session)
        self._pins[key] = Pin(decision.worker, now)
        self._pins.move_to_end(key)
        self._expire(now)

    def forget(self, worker: str) -> None:
        """Let the base forget. Pins stay: they heal at the next request, or serve again when the worker returns."""
        self.base.forget(worker)

    def _pin(self, request: RequestView, now: float) -> Pin | None:
        if request.session is None:
            return None
        pin = self._pins.get((request.model, request.session))
        return pin if pin and now - pin.used < self.settings.session_ttl else None

    def _expire(self, now: float) -> None:
        while len(self._pins) > self.settings.max_sessions:
            self._pins.popitem(last=False)
        while self._pins:
            oldest = next(iter(self._pins.values()))
            if now - oldest.used < self.settings.session_ttl:
                return
            self._pins.popitem(last=False)
