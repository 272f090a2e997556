"""A budget that all requests share, so that retries cannot double the load of a fleet that is failing."""

from __future__ import annotations

from gaugeblock.reference.router.watch import FailureKind

RETRY_STATUS = frozenset((502, 503, 504))
"""Answers after which another worker is asked."""
RETRIED_KINDS: frozenset[FailureKind] = frozenset(("connect", "reset", "malformed", "truncated"))
"""Breaks after which another worker is asked; a time-out has cost the client enough."""


class RetryBudget:
    """Each request adds ``ratio`` of a retry, up to ``burst``; a retry takes one. It starts full."""

    def __init__(self, ratio: float, burst: int) -> None:
        self._ratio, self._burst = ratio, float(burst)
        self._left = float(burst)

    def refill(self) -> None:
        """Note that a request has come."""
        self._left = min(self._burst, self._left + self._ratio)

    def take(self) -> bool:
        """Take one retry; False if none is left."""
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True
