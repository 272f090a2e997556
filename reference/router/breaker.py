"""A circuit breaker by worker: three outcomes, and probes that cannot leak."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum


class Outcome(StrEnum):
    """How an attempt ended. A 4xx and a client that left say nothing about the worker: neutral."""

    SUCCESS = "success"
    FAULT = "fault"
    NEUTRAL = "neutral"


class State(StrEnum):
    """Closed lets everything through, open nothing, half-open a bounded number of probes."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Breaker:
    """Opens after ``failures`` faults in a row; after ``cooldown`` seconds ``probes`` at a time may try it.

    ``successes`` good probes close it, one fault opens it again. A neutral end frees the probe's place and decides
    nothing. ``clock`` gives seconds.
    """

    def __init__(self, failures: int, cooldown: float, probes: int, successes: int, clock: Callable[[], float]) -> None:
        self.failures, self.cooldown, self.probes, self.successes = failures, cooldown, probes, successes
        self._clock = clock
        self._state = State.CLOSED
        self._row = 0  # faults in a row when closed, good probes when half-open
        self._probing = 0
        self._opened_at = 0.0
        self._generation = 0  # attempts of an earlier state must not be scored into this one

    @property
    def state(self) -> State:
        """The state now; an open breaker turns half-open by the clock alone."""
        if self._state is State.OPEN and self._clock() - self._opened_at >= self.cooldown:
            self._enter(State.HALF_OPEN)
        return self._state

    def allows(self) -> bool:
        """Whether an attempt may begin now."""
        if self._state is State.CLOSED:
            return True
        return self.state is State.HALF_OPEN and self._probing < self.probes

    def retry_after(self) -> float:
        """Seconds until an open breaker lets a probe through; 0 when it is not open."""
        return max(0.0, self._opened_at + self.cooldown - self._clock()) if self.state is State.OPEN else 0.0

    def begin(self) -> int:
        """Note the start of an attempt that :meth:`allows` permitted; returns a ticket for :meth:`end`."""
        if self._state is not State.CLOSED and self.state is State.HALF_OPEN:
            self._probing += 1
        return self._generation

    def end(self, ticket: int, outcome: Outcome) -> None:
        """Score an attempt, once, at its very end."""
        if ticket != self._generation:
            return
        if self._state is State.HALF_OPEN:
            self._probing -= 1
            self._score_probe(outcome)
        elif self._state is State.CLOSED:
            self._score(outcome)

    def _score(self, outcome: Outcome) -> None:
        if outcome is Outcome.SUCCESS:
            self._row = 0
        elif outcome is Outcome.FAULT:
            self._row += 1
            if self._row >= self.failures:
                self._open()

    def _score_probe(self, outcome: Outcome) -> None:
        if outcome is Outcome.FAULT:
            self._open()
        elif outcome is Outcome.SUCCESS:
            self._row += 1
            if self._row >= self.successes:
                self._enter(State.CLOSED)

    def _open(self) -> None:
        self._enter(State.OPEN)
        self._opened_at = self._clock()

    def _enter(self, state: State) -> None:
        self._state, self._row, self._probing = state, 0, 0
        self._generation += 1
