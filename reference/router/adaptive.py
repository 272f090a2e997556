"""How many requests one worker gets at a time, found from its latency: additive increase, multiplicative decrease.

That is the guide's adaptive batching seen from the router: the requests in flight at a worker are what its scheduler
makes batches of. Its sketch doubles and halves on the last latency alone and so swings between two sizes; AIMD settles,
and shares a worker fairly between several routers (Chiu and Jain, Computer Networks and ISDN Systems 17, 1989).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

_ROUND = 10  # answers of a window, or as many as the limit lets through at a time if that is less
_QUANTILE = 0.9  # of a window's latencies: a single slow prompt says little, a slow tenth of them does


@dataclass(frozen=True)
class Aim:
    """What the limit is steered by. ``target`` and ``window`` in seconds.

    A window whose 0.9 quantile of latency is above ``target`` takes the limit down to ``backoff`` of itself, one at or
    below it up by 1. The limit stays within ``floor`` and ``ceiling`` and starts at ``start``.
    """

    target: float
    window: float = 1.0
    backoff: float = 0.7
    floor: int = 1
    ceiling: int = 1024
    start: int = 16


class AdaptiveLimit:
    """The limit of one worker. Times are seconds of the caller's clock.

    It moves at most once a window, and a window holds a round of answers at least. Answers to requests that were sent
    before the last decrease tell of the old limit and are left out. It grows only after a window in which it was
    reached (as RFC 7661 has it for TCP): what was never tried proves nothing.
    """

    def __init__(self, aim: Aim, now: float) -> None:
        self._aim = aim
        self._limit = float(min(max(aim.start, aim.floor), aim.ceiling))
        self._latencies: list[float] = []
        self._reached = False
        self._since = self._decreased = now

    @property
    def value(self) -> int:
        """Requests that may be in flight: whole ones, at least the floor."""
        return math.floor(self._limit)

    def sent(self, in_flight: int) -> None:
        """Note that a request has gone out, the ``in_flight``-th under way."""
        self._reached = self._reached or in_flight >= self.value

    def note(self, began: float, latency: float, now: float) -> None:
        """Note the latency of a request sent at ``began``; infinity for one that the worker had no room for."""
        if began < self._decreased:
            return
        self._latencies.append(latency)
        if now - self._since >= self._aim.window and len(self._latencies) >= min(self.value, _ROUND):
            self._move(now)

    def _move(self, now: float) -> None:
        aim, seen = self._aim, sorted(self._latencies)
        if seen[math.ceil(_QUANTILE * len(seen)) - 1] > aim.target:
            self._limit = max(float(aim.floor), self._limit * aim.backoff)
            self._decreased = now
        elif self._reached:
            self._limit = min(float(aim.ceiling), self._limit + 1.0)
        self._latencies, self._reached, self._since = [], False, now
