"""Brings events from the scheduler's thread to the event loop, with one wake-up for all that came meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable

from gaugeblock.reference.engine.types import TokenEvent

Receiver = Callable[[TokenEvent], None]


class Mailbox:
    """Belongs to one event loop; only :meth:`post` may be called from another thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._receivers: dict[str, Receiver] = {}
        self._lock = threading.Lock()
        self._waiting: list[TokenEvent] = []
        self._woken = False

    def open(self, rid: str, receiver: Receiver) -> None:
        """Deliver the events of ``rid`` to ``receiver``, on the loop."""
        self._receivers[rid] = receiver

    def close(self, rid: str) -> None:
        """Drop what still comes for ``rid``."""
        self._receivers.pop(rid, None)

    def post(self, event: TokenEvent) -> None:
        """Take an event on any thread; does not wait for the loop."""
        with self._lock:
            self._waiting.append(event)
            wake, self._woken = not self._woken, True
        if wake:
            with contextlib.suppress(RuntimeError):  # the loop has closed: nobody waits for the event any more
                self.loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        with self._lock:
            events, self._waiting, self._woken = self._waiting, [], False
        for event in events:
            receiver = self._receivers.get(event.rid)
            if receiver is not None:
                receiver(event)
