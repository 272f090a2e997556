"""Discrete events: a trace through one policy's real code and a fleet of simulated workers."""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from random import Random

from gaugeblock.conformance.bench.routing.fleet import Engine, Visit, Worker
from gaugeblock.fixtures.traces import BLOCK_TOKENS, TraceRequest
from gaugeblock.reference.router.policies.base import Policy, RequestView, WorkerView

TOKEN_BYTES = 4
MAX_PREFIX = 64 << 10  # bytes: what the router reads of a prompt by default


@dataclass(frozen=True)
class Setup:
    """What all policies of a run have in common. ``speed``: how many times faster than recorded the requests come."""

    workers: int
    engine: Engine
    speed: float = 1.0
    seed: int = 1


@dataclass(frozen=True)
class Outcome:
    """What became of a trace under one policy."""

    policy: str
    visits: Sequence[Visit]
    workers: Sequence[Worker]
    decision_seconds: float  # CPU time of all decisions, with what is learnt from them
    duration: float  # seconds of the simulation


def view_of(request: TraceRequest) -> RequestView:
    """Return what a router would see of a request: token ids, cut as it cuts them.

    Each block of 512 tokens is one token id repeated. The trace names no sessions: the second block stands for one,
    since the first is a system prompt that nearly all share and the second a conversation's own beginning.
    """
    size = min(request.input_length * TOKEN_BYTES, MAX_PREFIX)
    blocks = request.hash_ids[: -(-size // (BLOCK_TOKENS * TOKEN_BYTES))]
    prompt = b"".join(block.to_bytes(TOKEN_BYTES, "little") * BLOCK_TOKENS for block in blocks)[:size]
    session = str(request.hash_ids[1]) if len(request.hash_ids) > 1 else None
    return RequestView("model", session, prompt, TOKEN_BYTES)


def simulate(trace: Iterable[TraceRequest], policy: Policy, name: str, setup: Setup) -> Outcome:
    """Replay a trace. Everything is decided by the seed; only ``decision_seconds`` is measured."""
    run = _Run(policy, setup)
    visits = [Visit(request, request.timestamp / 1000 / setup.speed) for request in trace]
    duration = run.play(visits)
    return Outcome(name, visits, run.workers, run.decision_seconds, duration)


class _Run:
    """The clock, the events and the fleet of one simulation."""

    def __init__(self, policy: Policy, setup: Setup) -> None:
        self.workers = [
            Worker.make(f"http://10.0.{n >> 8}.{n & 255}:30000", setup.engine) for n in range(setup.workers)
        ]
        self.decision_seconds = 0.0
        self._policy = policy
        self._by_name = {worker.name: worker for worker in self.workers}
        self._rng = Random(setup.seed)
        self._events: list[tuple[float, int, Visit, Worker | None, bool]] = []
        self._numbers = count()  # events of one moment in the order in which they were made

    def play(self, visits: Iterable[Visit]) -> float:
        """Run until nothing is left to happen; returns the last moment."""
        now = 0.0
        for now, visit, worker, prefilled in self._drain(visits):
            if worker is None:
                self._arrive(visit, now)
            elif prefilled:
                visit.first_token = now
                self._push(now + worker.prefilled(visit), visit, worker, False)
                self._begin(worker, now)
            else:
                visit.ended = now
                worker.done()
                self._begin(worker, now)
        return now

    def _drain(self, visits: Iterable[Visit]) -> Iterator[tuple[float, Visit, Worker | None, bool]]:
        for visit in visits:
            self._push(visit.arrived, visit, None, False)
        while self._events:
            now, _, visit, worker, prefilled = heapq.heappop(self._events)
            yield now, visit, worker, prefilled

    def _push(self, at: float, visit: Visit, worker: Worker | None, prefilled: bool) -> None:
        heapq.heappush(self._events, (at, next(self._numbers), visit, worker, prefilled))

    def _arrive(self, visit: Visit, now: float) -> None:
        views = [WorkerView(worker.name, worker.in_flight) for worker in self.workers]
        request = view_of(visit.request)
        began = time.thread_time()
        decision = self._policy.decide(request, views, self._rng, now)
        self._policy.record(request, decision, now)
        self.decision_seconds += time.thread_time() - began
        visit.predicted = decision.matched
        worker = self._by_name[decision.worker]
        worker.in_flight += 1
        worker.requests += 1
        worker.waiting.append(visit)
        self._begin(worker, now)

    def _begin(self, worker: Worker, now: float) -> None:
        begun = worker.begin()
        if begun is not None:
            visit, seconds = begun
            self._push(now + seconds, visit, worker, True)
