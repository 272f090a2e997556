"""One connection to a worker and the exchange on it: bytes come in by callback, the proxy awaits heads and pieces."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gaugeblock.reference.router.body import BodyReader
from gaugeblock.reference.router.http1 import (
    Head,
    MalformedError,
    body_length,
    keeps_alive,
    parse_response_head,
)
from gaugeblock.reference.router.watch import ExchangeError, FailureKind, Watch

_HIGH_WATER = 256 << 10
_HEAD_LIMIT = 256 << 10


class Exchange(asyncio.Protocol):
    """A connection to a worker; ``begin`` starts an exchange, ``rest`` ends it well, ``abort`` cuts it.

    ``length`` of the response's body: bytes, -1 for chunked, None for until the worker closes.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._watch = Watch(self._loop, self._fail)
        self.closed = False
        self.rested_at = 0.0
        self._kept = self._in_order = False
        self._reset(False)

    def _reset(self, headless: bool) -> None:
        self.status = 0
        self.head: Head | None = None
        self.length: int | None = None
        self.done = False
        self.got_body = False
        self._headless = headless
        self._body: BodyReader | None = None
        self._buffer = b""
        self._pieces: list[bytes] = []
        self._before = self._latest = b""
        self._held = 0
        self._paused = False
        self._error: ExchangeError | None = None
        self.first_byte: float | None = None  # seconds from the request to the first byte of the body
        self._began = self._loop.time()

    # -- the proxy's side

    def begin(self, message: bytes, headless: bool) -> None:
        """Write a request. ``headless``: the response has no body whatever its head says (HEAD)."""
        self._reset(headless)
        if self._transport is None or self.closed:
            self._error = ExchangeError("reset")
        else:
            self._transport.write(message)

    def limit(self, idle: float | None, deadline: float | None) -> None:
        """Fail the exchange after ``idle`` seconds of silence while it is awaited, or at ``deadline`` (loop time)."""
        self._watch.start(idle, deadline)

    async def read_head(self) -> Head:
        """Wait for the response's head.

        Raises:
            ExchangeError: the connection broke, a limit passed, or the head is malformed.
        """
        while self.head is None:
            await self._wait()
        return self.head

    async def read_body(self) -> bytes:
        """Return what has come of the body, waiting for at least one byte; empty at its end.

        Raises:
            ExchangeError: as :meth:`read_head`; what came before the break is returned first.
        """
        while not self._pieces:
            if self.done:
                return b""
            await self._wait()
        data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._before, self._latest = self._latest, data
        self._pieces = []
        self._held = 0
        if self._paused:
            self._paused = False
            assert self._transport is not None
            self._transport.resume_reading()
        return data

    async def body_within(self, seconds: float) -> None:
        """Return as soon as a piece of the body or its end is there, or after ``seconds``.

        Raises:
            ExchangeError: it broke in between.
        """
        if self._pieces or self.done or seconds <= 0:
            return
        timer = self._loop.call_later(seconds, self.wake)
        try:
            await self._wait()
        finally:
            timer.cancel()

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait until ``true()``, which is asked at every event of the connection and at every :meth:`wake`.

        Raises:
            ExchangeError: as :meth:`read_head`, also while pieces of the body are still unread.
        """
        while not true():
            self._raise_error()
            await self._wait()

    def wake(self) -> None:
        """Let whoever waits look again."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def whole_body(self) -> bytes:
        """Wait for the end of the body and return all of it.

        Raises:
            ExchangeError: as :meth:`read_head`.
        """
        parts = []
        while part := await self.read_body():
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    @property
    def reusable(self) -> bool:
        """Whether the exchange ended well and the worker keeps the connection."""
        if not self.done or self.closed or self._error or self.head is None or self._buffer:
            return False
        return self.length is not None and keeps_alive(self.head, self.head.first[0])

    def tail(self, size: int) -> bytes:
        """Return up to ``size`` last bytes of the body, as far as the last two pieces hold them."""
        return (self._before[-size:] + self._latest)[-size:]

    @property
    def stale(self) -> bool:
        """Whether a kept connection was closed in good order before any answer: the request came too late to be read.

        Worth a new connection to the same worker, as RFC 9112 section 9.3.1 has it; a crash resets instead.
        """
        return self._kept and self._in_order and self.head is None and not self._buffer

    def rest(self) -> None:
        """Keep the connection for the next exchange."""
        self._kept = True
        self._watch.stop()
        self.rested_at = self._loop.time()

    def abort(self) -> None:
        """Cut the connection at once: the worker sees its client leave."""
        self._watch.stop()
        self.closed = True
        if self._transport is not None:
            self._transport.abort()

    # -- the connection's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop: the end of a body that runs until the close, otherwise a break."""
        self._in_order = exc is None and not self.closed
        self.closed = True
        if self.head is not None and self.length is None and not self.done and exc is None:
            self.done = True
        elif not self.done:
            self._error = self._error or ExchangeError("reset")
        self._watch.stop()
        self.wake()

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        self._watch.touch()
        try:
            if self.done:
                self.abort()  # nobody asked for this: the connection cannot be trusted any more
            elif self.head is None:
                self._feed_head(data)
            else:
                self._feed_body(data)
        except MalformedError:
            self._fail("malformed")
        self.wake()

    def _feed_head(self, data: bytes) -> None:
        self._buffer += data
        while self.head is None:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                if len(self._buffer) > _HEAD_LIMIT:
                    raise MalformedError("the head is too long")
                return
            status, head = parse_response_head(self._buffer[:end])
            self._buffer = self._buffer[end + 4 :]
            if status == 101:
                raise MalformedError("nobody asked for another protocol")
            if status >= 200:
                self._enter_body(status, head)
        rest, self._buffer = self._buffer, b""
        if self.done:
            self._buffer = rest
        elif rest:
            self._feed_body(rest)

    def _enter_body(self, status: int, head: Head) -> None:
        length = body_length(head.fields)
        if self._headless or status in (204, 304):
            self._body, self.length = BodyReader(0), 0
        else:
            self._body, self.length = BodyReader(length), length
        self.status, self.head = status, head
        self.done = self._body.done

    def _feed_body(self, data: bytes) -> None:
        assert self._body is not None
        self._keep(self._body.feed(data))
        if self._body.done:
            self.done, self._buffer = True, self._body.rest

    def _keep(self, pieces: list[bytes]) -> None:
        self._pieces += pieces
        if pieces and not self.got_body:
            self.got_body = True
            self.first_byte = self._loop.time() - self._began
        self._held += sum(map(len, pieces))
        if self._held > _HIGH_WATER and not self._paused and self._transport is not None and not self.closed:
            self._paused = True
            self._transport.pause_reading()

    # -- waiting and limits

    async def _wait(self) -> None:
        self._raise_error()
        if self.got_body:  # silence counts from here on: a slow client is not the worker's fault
            self._watch.touch()
        self._waiter = self._loop.create_future()
        self._watch.awaited = True
        try:
            await self._waiter
        finally:
            self._waiter = None
            self._watch.awaited = False
        if not self._pieces:
            self._raise_error()

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _fail(self, kind: FailureKind) -> None:
        self._error = self._error or ExchangeError(kind)
        self.abort()
        self.wake()
