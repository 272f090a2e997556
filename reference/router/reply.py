"""The reply to one request: status and header bytes as given, a framing that fits the client, an end or an abort."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from typing import Any, Protocol

from gaugeblock.reference.router.body import chunk
from gaugeblock.reference.router.http1 import Header
from gaugeblock.reference.router.sse import error_body


class Line(Protocol):
    """What a reply needs of its connection."""

    transport: asyncio.Transport | None
    closing: bool

    @property
    def congested(self) -> bool:
        """Whether the client is behind with reading."""

    async def drain(self) -> None:
        """Wait until it has caught up or left."""


class Reply:
    """``begin``, any number of ``write``, ``end``; or ``error`` and ``json`` for whole answers of the router's own."""

    __slots__ = ("_bodiless", "_chunked", "_http10", "_line", "_pending", "ended", "events", "started", "status")

    def __init__(self, line: Line, method: bytes, version: bytes) -> None:
        self._line = line
        self._bodiless = method == b"HEAD"
        self._http10 = version == b"HTTP/1.0"
        self._chunked = False
        self._pending = b""  # a head waits for the first piece of body, to go out in one write
        self.started = self.ended = False
        self.events = False  # the body is a stream of events, so an error can be told inside it
        self.status = 0

    @property
    def connected(self) -> bool:
        """Whether the client is still there."""
        return self._line.transport is not None

    def begin(self, status: int, reason: bytes, headers: Iterable[Header], length: int | None) -> None:
        """Start with a head. ``length``: bytes of the body if the headers name it, None if it is not known yet."""
        self.started, self.status = True, status
        self._bodiless = self._bodiless or status in (204, 304)
        lines = [b"HTTP/1.1 %d %b" % (status, reason)]
        lines += [b"%b: %b" % header for header in headers]
        if length is None and not self._bodiless:
            if self._http10:
                self._line.closing = True
            else:
                self._chunked = True
                lines.append(b"Transfer-Encoding: chunked")
        if self._line.closing:
            lines.append(b"Connection: close")
        elif self._http10:
            lines.append(b"Connection: keep-alive")
        self._pending = b"\r\n".join(lines) + b"\r\n\r\n"

    def write(self, piece: bytes) -> None:
        """Send a piece of the body, empty ones too: they send a head that is waiting."""
        if piece and not self._bodiless:
            self._send(chunk(piece) if self._chunked else piece)
        elif self._pending:
            self._send(b"")

    def end(self) -> None:
        """The body is whole."""
        self.ended = True
        if self._chunked:
            self._send(b"0\r\n\r\n")
        elif self._pending:
            self._send(b"")

    def abort(self) -> None:
        """Cut the connection: the only way to tell a client that a body of this kind is not whole."""
        self._line.closing = True
        if self._line.transport is not None:
            self._line.transport.abort()

    @property
    def congested(self) -> bool:
        """Whether the client is behind with reading."""
        return self._line.congested

    async def drain(self) -> None:
        """Wait until the client has caught up or left."""
        await self._line.drain()

    def whole(self, status: int, reason: str, body: bytes, kind: str, headers: Iterable[Header] = ()) -> None:
        """Answer at once with a body of the router's own."""
        own = [(b"Content-Type", kind.encode()), (b"Content-Length", b"%d" % len(body)), *headers]
        self.begin(status, reason.encode(), own, len(body))
        self.write(body)
        self.end()

    def json(self, status: int, reason: str, data: Any, headers: Iterable[Header] = ()) -> None:
        """Answer with JSON."""
        self.whole(status, reason, json.dumps(data).encode(), "application/json", headers)

    def error(
        self,
        status: int,
        reason: str,
        code: str,
        message: str,
        *,
        family: str = "openai",
        headers: Iterable[Header] = (),
    ) -> None:
        """Answer with an error in the shape of the client's API family."""
        self.whole(status, reason, error_body(family, status, code, message), "application/json", headers)

    def _send(self, data: bytes) -> None:
        pending, self._pending = self._pending, b""
        if self._line.transport is not None:
            self._line.transport.write(pending + data if pending else data)
