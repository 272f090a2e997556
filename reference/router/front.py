"""The router's side towards its clients: an HTTP/1.1 connection, the request on it and the reply to it.

Raw asyncio protocols instead of an ASGI server: half the time a request, and header names, reasons and body bytes stay
as they came.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from gaugeblock.reference.router.body import BodyReader
from gaugeblock.reference.router.http1 import (
    Head,
    MalformedError,
    body_length,
    keeps_alive,
    parse_request_head,
)
from gaugeblock.reference.router.reply import Reply
from gaugeblock.reference.router.sse import error_body
from gaugeblock.reference.router.view import FAMILIES

_LINGER = 2.0  # seconds to drop what a refused client still sends
_MANY_PARTS = 1024  # a body in chunks of one byte must not cost an object a byte

log = logging.getLogger(__name__)


class Request(NamedTuple):
    """A whole request. ``target`` is as sent; ``path`` is its part before the query. ``tenant`` is proved by a key."""

    method: bytes
    target: bytes
    path: str
    query: str
    head: Head
    body: bytes
    tenant: str | None = None


Handler = Callable[[Request, Reply], Awaitable[None]]


class Limits(NamedTuple):
    """What a client may send and how long it may take, in bytes and seconds."""

    head_bytes: int
    body_bytes: int
    read_timeout: float
    keepalive: float


class ClientConnection(asyncio.Protocol):
    """One client's connection: one request at a time, its handler cancelled when the client leaves.

    ``deadline`` (loop time) is when the server may give up on a client that sends nothing; None while a request runs.
    """

    def __init__(self, handler: Handler, limits: Limits, connections: set[ClientConnection]) -> None:
        self._handler = handler
        self._limits = limits
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._buffer = b""
        self._head: Head | None = None
        self._parts: list[bytes] = []
        self._size = 0  # bytes of the body so far
        self._reading = False  # a request has begun to come
        self._lingering = False  # it has been refused, and the rest of it is dropped
        self._body: BodyReader | None = None
        self._room: asyncio.Future[None] | None = None
        self.task: asyncio.Task[None] | None = None
        self.transport: asyncio.Transport | None = None
        self.lost: asyncio.Future[None] = self._loop.create_future()  # done once the connection is gone
        self.closing = False  # no further request on this connection
        self.deadline: float | None = None

    # -- events of the loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._connections.add(self)
        self.deadline = self._loop.time() + self._limits.keepalive

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop: the client has left, so its request is cancelled at once."""
        self._connections.discard(self)
        self.transport = None
        self.lost.set_result(None)
        self.resume_writing()
        if self.task is not None:
            self.task.cancel()

    def pause_writing(self) -> None:
        """Called by the loop: the client reads slower than the worker writes."""
        self._room = self._room or self._loop.create_future()

    def resume_writing(self) -> None:
        """Called by the loop."""
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        self._room = None

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        if self._lingering:
            return
        self._buffer = self._buffer + data if self._buffer else data
        if self.task is None:
            self._advance()
        elif len(self._buffer) > self._limits.head_bytes:
            self.hang_up()  # far ahead of its own answers: no well-behaved client does this

    # -- reading a request

    def _advance(self) -> None:
        if self.closing:
            return
        try:
            whole = self._read_head() and self._read_body()
        except MalformedError as error:
            self._refuse(b"400", b"Bad Request", "malformed_request", str(error))
            return
        if whole and not self.closing:
            self._dispatch()
        elif not self.closing and (self._head is not None or not self._reading):
            self._reading = True  # a head must be whole in time, a body must only keep coming
            self.deadline = self._loop.time() + self._limits.read_timeout

    def _read_head(self) -> bool:
        if self._head is not None:
            return True
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0 or end > self._limits.head_bytes:
            if len(self._buffer) > self._limits.head_bytes:
                self._refuse(b"431", b"Request Header Fields Too Large", "head_too_large", "the head is too large")
            return False
        self._head = parse_request_head(self._buffer[:end].lstrip(b"\r\n"))
        self._buffer = self._buffer[end + 4 :]
        length = body_length(self._head.fields) or 0
        self._body = BodyReader(length)
        if length > self._limits.body_bytes:
            self._refuse_size()
            return False
        if self._head.fields.get(b"expect", b"").lower() == b"100-continue" and self.transport is not None:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return True

    def _read_body(self) -> bool:
        assert self._body is not None
        pieces = self._body.feed(self._buffer)
        self._buffer = self._body.rest
        self._parts += pieces
        self._size += sum(map(len, pieces))
        if len(self._parts) > _MANY_PARTS:
            self._parts = [b"".join(self._parts)]
        if self._size > self._limits.body_bytes:
            self._refuse_size()
        return self._body.done

    def _dispatch(self) -> None:
        head = self._head
        assert head is not None
        body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._head, self._parts, self._size, self._reading = None, [], 0, False
        self.deadline = None
        method, target, version = head.first
        if target.startswith(b"http://"):  # absolute form, as to a forward proxy
            target = b"/" + target[7:].partition(b"/")[2]
        path, _, query = target.decode("ascii").partition("?")
        self.closing = not keeps_alive(head, version)
        reply = Reply(self, method, version)
        self.task = self._loop.create_task(self._serve(Request(method, target, path, query, head, body), reply))

    async def _serve(self, request: Request, reply: Reply) -> None:
        try:
            await self._handler(request, reply)
        except Exception:  # the last resort of every request
            log.exception("the router failed on %s", request.path)
            if not reply.started:
                reply.error(500, "Internal Server Error", "router_error", "the router failed on this request")
        finally:
            self.task = None
            self._finish(reply)

    def _finish(self, reply: Reply) -> None:
        transport = self.transport
        if transport is None:
            return
        if not reply.ended:
            transport.abort()
        elif self.closing:
            transport.close()
        else:
            self.deadline = self._loop.time() + self._limits.keepalive
            if self._buffer:
                self._loop.call_soon(self._next)

    def _next(self) -> None:
        if self.task is None and self._buffer and self.transport is not None:
            self._advance()

    # -- what reply and server use

    @property
    def congested(self) -> bool:
        """Whether the client is behind with reading."""
        return self._room is not None

    async def drain(self) -> None:
        """Wait until the client has caught up or left."""
        if self._room is not None:
            await asyncio.shield(self._room)

    def hang_up(self) -> None:
        """Cut the connection at once."""
        self.closing = True
        if self.transport is not None:
            self.transport.abort()

    def close_when_idle(self) -> None:
        """Take no further request; close now if none is running."""
        self.closing = True
        if self.task is None and self.transport is not None:
            self.transport.close()

    def _refuse_size(self) -> None:
        limit = self._limits.body_bytes
        self._refuse(b"413", b"Content Too Large", "body_too_large", f"the body is larger than {limit} bytes")

    def _refuse(self, status: bytes, reason: bytes, code: str, message: str) -> None:
        """Answer what is no request, and close: where the next one would begin is not known.

        What still comes is dropped for a while: closing on unread bytes resets the connection, and the client would
        lose the answer (RFC 9112, section 9.6).
        """
        self.closing = self._lingering = True
        self._buffer, self._parts = b"", []
        self.deadline = self._loop.time() + _LINGER
        if self.transport is None:
            return
        path = self._head.first[1].partition(b"?")[0].decode("ascii") if self._head is not None else ""
        body = error_body(FAMILIES.get(path, "openai"), int(status), code, message)
        head = b"HTTP/1.1 %b %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
        self.transport.write(head % (status, reason, len(body)) + body)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()
