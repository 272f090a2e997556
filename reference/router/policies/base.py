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
    """One worker that may take the request now. ``load`` is the number of requests the router has in flight there."""

    id: str
    load: int = 0


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
    load_cost: float = 512.0
    session_ttl: float = 3600.0
    max_sessions: int = 100_000


class Policy(Protocol):
    """A policy: ``decide`` reads, ``record`` learns what was decided. The clock and the dice come from outside."""

    name: str
    reads_prompt: bool

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


def idlest(workers: Sequence[WorkerView], rng: Random) -> WorkerView:
    """Return a least loaded worker, ties broken at random so that idle workers do not herd."""
    low = min(worker.load for worker in workers)
    ties = [worker for worker in workers if worker.load == low]
    return ties[0] if len(ties) == 1 else rng.choice(ties)
