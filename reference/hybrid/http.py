"""What an HTTP request asks of the lanes by its headers, and how its answer names the lane."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gaugeblock.reference.engine.types import EventSink, RequestError, TokenEvent
from gaugeblock.reference.hybrid.jobs import Qos

PRIORITY, TIMEOUT, FLOOR = b"x-priority", b"x-request-timeout", b"x-quality-floor"
"""The router's names: it passes them on."""
TOLD = {
    "lane": b"x-gaugeblock-lane",
    "lane_quality": b"x-gaugeblock-lane-quality",
    "degraded": b"x-gaugeblock-degraded",
}


class Visit:
    """One HTTP request: what it asks for, and who has served its sequences so far."""

    def __init__(self, headers: Mapping[bytes, bytes]) -> None:
        self._headers = headers
        self._served: dict[str, Mapping[str, object]] = {}

    @property
    def qos(self) -> Qos:
        """What the headers say.

        Raises:
            RequestError: one of them cannot be understood.
        """
        said = {name: self._headers[name].decode("latin-1").strip().lower() for name in (PRIORITY, TIMEOUT, FLOOR)
                if name in self._headers}  # fmt: skip
        try:
            timeout = float(said[TIMEOUT]) if TIMEOUT in said else None
        except ValueError:
            raise RequestError(f"the time-out (x-request-timeout) must be seconds > 0; got {said[TIMEOUT]!r}") from None
        return Qos(said.get(PRIORITY, Qos.priority), said.get(FLOOR), timeout)

    def watch(self, sink: EventSink) -> EventSink:
        """Return a sink that notes who serves."""

        def watched(event: TokenEvent) -> None:
            if event.served_by is not None:
                self._served[event.rid] = event.served_by
            sink(event)

        return watched

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Return what the answer's head says; several sequences may have several lanes."""
        found = []
        for field, header in TOLD.items():
            values = dict.fromkeys(str(served[field]) for served in self._served.values() if served[field] is not None)
            if values:
                found.append((header, ",".join(values).encode("latin-1")))
        return found


_visit: ContextVar[Visit | None] = ContextVar("visit", default=None)


def asked_here() -> Visit:
    """Return the visit of the HTTP request that is being answered; one that asks for nothing where there is none."""
    return _visit.get() or Visit({})


class QosHeaders:
    """Middleware: reads what a request asks for and adds to the answer's head who has served it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        visit = Visit(dict(scope["headers"]))
        _visit.set(visit)  # of this request's task alone

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *visit.headers()]}
            await send(message)

        await self.app(scope, receive, told)
