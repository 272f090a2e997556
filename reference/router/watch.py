"""The two limits of an exchange, told apart: silence, and time in all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Literal

FailureKind = Literal["connect", "reset", "malformed", "truncated", "idle", "total"]


class ExchangeError(Exception):
    """An exchange with a worker broke. ``kind`` says how."""

    def __init__(self, kind: FailureKind) -> None:
        super().__init__(kind)
        self.kind: FailureKind = kind


class Watch:
    """Calls ``fail`` with ``idle`` after too long a silence while somebody waits, or with ``total`` at a deadline.

    One timer, moved on when it finds that bytes have come: none is set for each piece.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, fail: Callable[[FailureKind], None]) -> None:
        self._loop, self._fail = loop, fail
        self._timer: asyncio.TimerHandle | None = None
        self._idle: float | None = None
        self._deadline: float | None = None
        self._last_byte = 0.0
        self.awaited = False  # silence counts only while it is: a slow client is not the worker's fault

    def start(self, idle: float | None, deadline: float | None) -> None:
        """Set the limits: ``idle`` in seconds from now, ``deadline`` in loop time."""
        self._idle, self._deadline = idle, deadline
        self.touch()
        self._arm()

    def stop(self) -> None:
        """Watch no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def touch(self) -> None:
        """Bytes have come, or somebody begins to wait for them."""
        self._last_byte = self._loop.time()

    def _arm(self) -> None:
        self.stop()
        ends = [self._deadline] if self._deadline is not None else []
        if self._idle is not None:
            ends.append(self._last_byte + self._idle)
        if ends:
            self._timer = self._loop.call_at(min(ends), self._check)

    def _check(self) -> None:
        now = self._loop.time()
        self._timer = None
        if self._deadline is not None and now >= self._deadline:
            self._fail("total")
        elif self._idle is not None and self.awaited and now - self._last_byte >= self._idle:
            self._fail("idle")
        else:
            if not self.awaited:
                self.touch()
            self._arm()
