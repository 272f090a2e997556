"""One worker as the router knows it, and the lease that counts a request in flight there."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Callable
from enum import StrEnum
from types import TracebackType
from typing import Any

from gaugeblock.reference.router.adaptive import AdaptiveLimit
from gaugeblock.reference.router.breaker import Breaker, Outcome
from gaugeblock.reference.router.config import RouterConfig
from gaugeblock.reference.router.spec import WorkerSpec
from gaugeblock.reference.router.upstream import Upstream
from gaugeblock.reference.router.watch import FailureKind

NO_ROOM = frozenset((429, 503))
"""What a worker answers when it is the one that has no room."""


class Health(StrEnum):
    """What the health checks say. A worker that was never checked gets no traffic."""

    UNKNOWN = "unknown"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    WARMING = "warming"  # it is well, and is being sent what it should have in its cache before it gets traffic


class Worker:
    """State of one worker.

    ``models`` is what was declared of it; if nothing was, it is empty until the worker has told, and takes any model.
    """

    def __init__(self, spec: WorkerSpec, config: RouterConfig, clock: Callable[[], float]) -> None:
        self.spec = spec
        self.id = spec.url
        self.host = spec.url.partition("://")[2].rpartition(":")[0]
        self.health = Health.UNKNOWN
        self.draining = False
        self.models = frozenset(spec.models)
        self.model_entries: list[dict[str, Any]] = []  # as the worker lists them in /v1/models
        self.in_flight = 0
        self.dp_size = 1  # data-parallel ranks of a prefill worker, each with a prefix cache of its own
        self.follows_room = True  # it serves a request on the rank "room modulo dp_size", as SGLang does by default
        self.bootstrap_port = spec.bootstrap_port
        self.rank_load: Counter[int] = Counter()  # requests in flight by rank
        self.outcomes = dict.fromkeys(Outcome, 0)
        self.upstream = Upstream(spec.url, config.connect_timeout, config.pool_idle)
        self.breaker = Breaker(
            config.breaker_failures, config.breaker_cooldown, config.breaker_probes, config.breaker_successes, clock
        )
        self.limit = AdaptiveLimit(config.aim, clock()) if config.aim is not None else None
        self.warming = 0  # warm-up requests under way: they take room and count as nobody's traffic
        self.on_free: Callable[[], None] | None = None  # called whenever there may be room for another request
        self.on_idle: Callable[[], None] | None = None  # called whenever the last request in flight has ended
        self._last_said = Health.UNKNOWN
        self._streak = 0  # health checks in a row that said the same
        self.clock = clock
        self._cap = spec.max_in_flight or config.worker_max_in_flight
        self.to_first_byte = config.adaptive_signal == "first_byte"
        self._needed, self._tolerated = config.health_successes, config.health_failures

    def serves(self, model: str | None) -> bool:
        """Whether the worker would know the model."""
        if model is None or not self.models or model in self.models:
            return True
        return model.partition(":")[0] in self.models  # BASE:ADAPTER, as SGLang names a LoRA

    def listed(self) -> list[str]:
        """Return the names that the worker shows its clients; a path of its own disk is not among them."""
        return [str(entry["id"]) for entry in self.model_entries]

    @property
    def names(self) -> list[str]:
        """The names under which policies know it: its id, or one a rank if it has several."""
        return [self.id] if self.dp_size == 1 else [f"{self.id}@{rank}" for rank in range(self.dp_size)]

    @property
    def full(self) -> bool:
        """Whether it has as many requests in flight as it may."""
        most = self.most
        return most is not None and self.in_flight + self.warming >= most

    @property
    def vacant(self) -> int:
        """Requests more that it may get now."""
        most = self.most
        return sys.maxsize if most is None else max(0, most - self.in_flight - self.warming)

    @property
    def most(self) -> int | None:
        """Requests that it may have in flight now, None for no limit."""
        if self.limit is None:
            return self._cap
        return self.limit.value if self._cap is None else min(self._cap, self.limit.value)

    def available(self) -> bool:
        """Whether it serves now; one that is full serves the next request a little later."""
        return self.health is Health.HEALTHY and not self.draining and self.breaker.allows()

    def reason(self) -> str:
        """One word for why the worker gets no traffic, or ``available``."""
        if self.draining:
            return "draining"
        if self.health is not Health.HEALTHY:
            return str(self.health)
        return "available" if self.breaker.allows() else "breaker_open"

    def note_health(self, good: bool) -> bool:
        """Count one health check; returns whether the state changed. The thresholds apply from the first check on."""
        said = Health.HEALTHY if good else Health.UNHEALTHY
        self._streak = self._streak + 1 if said is self._last_said else 1
        self._last_said = said
        if said is self.health or self._streak < (self._needed if good else self._tolerated):
            return False
        self.health = said
        return True

    def describe(self) -> dict[str, Any]:
        """Return the state as JSON for ``/workers``."""
        return {
            "id": self.id,
            "url": self.id,
            **self.spec.describe(),
            "models": sorted(self.models),
            "is_healthy": self.health is Health.HEALTHY,
            "health": self.health,
            "draining": self.draining,
            "available": self.available(),
            "reason": self.reason(),
            "breaker": self.breaker.state,
            "load": self.in_flight,
            "limit": self.most,
            "outcomes": {str(outcome): count for outcome, count in self.outcomes.items()},
        }


class Lease:
    """One attempt at a worker: counted in flight and in the breaker from ``begin`` or ``with`` to its end.

    The outcome is neutral unless :meth:`score` was called: a cancelled attempt says nothing about its worker. ``rank``
    is the data-parallel rank that serves it, where the router has chosen one.
    """

    __slots__ = ("_began", "_latency", "_open", "_outcome", "_rank", "_ticket", "worker")

    def __init__(self, worker: Worker, rank: int | None = None) -> None:
        self.worker = worker
        self._rank = rank
        self._open = False
        self._outcome = Outcome.NEUTRAL
        self._latency: float | None = None

    def begin(self) -> Lease:
        """Count the attempt; nothing the second time."""
        if self._open:
            return self
        self._open = True
        worker = self.worker
        self._ticket = worker.breaker.begin()
        worker.in_flight += 1
        if self._rank is not None:
            worker.rank_load[self._rank] += 1
        if worker.limit is not None:
            self._began = worker.clock()
            worker.limit.sent(worker.in_flight)
        return self

    def score(self, outcome: Outcome) -> None:
        """Say how the attempt went; the last word before the end counts."""
        self._outcome = outcome

    def heard(self, status: int, first_byte: float | None) -> None:
        """Say what the adaptive limit should learn: the answer's status and the seconds to its first byte."""
        if self.worker.limit is None or self._latency is not None:
            return
        if status in NO_ROOM:
            self._latency = math.inf
        elif self.worker.to_first_byte:
            self._latency = first_byte
        else:
            self._latency = self.worker.clock() - self._began

    def broke(self, kind: FailureKind) -> None:
        """Say that the worker failed. One that took too long has too much to do."""
        self.score(Outcome.FAULT)
        if kind in ("idle", "total"):
            self._latency = math.inf

    def end(self) -> None:
        """End the attempt, before the ``with`` does; nothing the second time."""
        if not self._open:
            return
        self._open = False
        worker = self.worker
        worker.in_flight -= 1
        if self._rank is not None:
            worker.rank_load[self._rank] -= 1
        worker.outcomes[self._outcome] += 1
        worker.breaker.end(self._ticket, self._outcome)
        if worker.limit is not None and self._latency is not None:
            worker.limit.note(self._began, self._latency, worker.clock())
        if not worker.in_flight and worker.on_idle is not None:
            worker.on_idle()
        if worker.on_free is not None:
            worker.on_free()

    def __enter__(self) -> Lease:
        return self.begin()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()
