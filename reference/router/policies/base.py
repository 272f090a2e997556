"""What a policy sees and says. Nothing here knows of HTTP, so a simulator can replay traces through the same code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import NamedTuple, Protocol, TypeVar


class RequestView(NamedTuple):
    """The part of a request that routing may look at.

    ``prompt`` is the prompt as bytes (UTF-8 text, or token ids of ``unit`` bytes each), cut to the policy's limit.
    """

    model: str | None = None
    session: str | None = None
    prompt: bytes = b""
    unit: int = 1


class WorkerView(NamedTuple):
    """One worker that may take the request now; one that is at its cap of admission is not among them.

    ``load`` is the number of requests the router has in flight there, ``weight`` what the worker is worth beside the
    others: with twice the weight it is as busy at twice the load.
    """

    id: str
    load: int = 0
    weight: float = 1.0

    @property
    def pressure(self) -> float:
        """Load by weight."""
        return self.load / self.weight


class Decision(NamedTuple):
    """Where a request goes and why. ``reason`` is one word of a small set; ``matched`` is the predicted prefix in units
    of the prompt (bytes of text, or tokens)."""

    worker: str
    policy: str
    reason: str
    matched: int = 0


class PolicySettings(NamedTuple):
    """The policies' share of the configuration (see ``RouterConfig``)."""

    cache_bytes: int = 32 << 20
    min_match_bytes: int = 256
    load_cost: float = 1024.0
    session_ttl: float = 3600.0
    max_sessions: int = 100_000
    hash_head_bytes: int = 1024
    hash_load_factor: float = 1.5
    hash_load_floor: int = 4


class Policy(Protocol):
    """A policy: ``decide`` reads, ``record`` learns what was decided. The clock and the dice come from outside.

    Of the dice only ``random()`` is used: the one method of ``random.Random`` whose numbers Python promises to keep.
    """

    name: str
    reads_prompt: bool
    keeps_sessions: bool  # by itself, so that no table of sessions is laid over it

    def decide(self, request: RequestView, workers: Sequence[WorkerView], rng: Random, now: float) -> Decision:
        """Pick one of ``workers`` (never empty) for ``request``. Changes nothing."""

    def record(self, request: RequestView, decision: Decision, now: float) -> None:
        """Learn from a decision that is being carried out."""

    def forget(self, worker: str) -> None:
        """Drop what is known about a worker that has left or lost its cache."""


@dataclass
class Stateless:
    """Base of policies that learn nothing."""

    settings: PolicySettings
    name = "stateless"
    reads_prompt = False
    keeps_sessions = False

    def record(self, request: RequestView, decision: Decision, now: float) -> None:
        """Learn nothing."""

    def forget(self, worker: str) -> None:
        """Know nothing."""


registered: dict[str, Callable[[PolicySettings], Policy]] = {}
PolicyClass = TypeVar("PolicyClass", bound=Callable[[PolicySettings], Policy])


def policy(name: str) -> Callable[[PolicyClass], PolicyClass]:
    """Register a policy class under its public name."""

    def register(cls: PolicyClass) -> PolicyClass:
        cls.name = name  # type: ignore[attr-defined] # the bound says callable, but classes come here
        registered[name] = cls
        return cls

    return register


def drawn(workers: Sequence[WorkerView], rng: Random) -> WorkerView:
    """Return one of ``workers``, each as likely as its weight says. One alone costs no throw of the dice."""
    count = len(workers)
    if count == 1:
        return workers[0]
    weights = [worker.weight for worker in workers]
    if weights.count(weights[0]) == count:
        return workers[int(rng.random() * count)]
    point = rng.random() * sum(weights)
    for worker in workers:
        point -= worker.weight
        if point < 0:
            return worker
    return workers[-1]  # the sum was rounded up


def idlest(workers: Sequence[WorkerView], rng: Random) -> WorkerView:
    """Return a worker of the least pressure, ties broken at random so that idle workers do not herd."""
    return idlest_of(workers, pressures(workers), rng)


def pressures(workers: Sequence[WorkerView]) -> list[float]:
    """Return each worker's load by its weight."""
    return [worker.load / worker.weight for worker in workers]


def idlest_of(workers: Sequence[WorkerView], loads: Sequence[float], rng: Random) -> WorkerView:
    """Return what :func:`idlest` does, from pressures that are known already."""
    low = min(loads)
    return drawn([worker for worker, load in zip(workers, loads, strict=True) if load == low], rng)
