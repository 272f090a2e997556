"""The router's side towards one worker: a pool of HTTP/1.1 connections, each carrying one request at a time."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable

from gaugeblock.reference.router.exchange import Exchange
from gaugeblock.reference.router.http1 import Header
from gaugeblock.reference.router.urls import address
from gaugeblock.reference.router.watch import ExchangeError


class Upstream:
    """The connections to one worker. Unused ones are dropped after ``pool_idle`` seconds or when the worker closes."""

    def __init__(self, worker: str, connect_timeout: float | None, pool_idle: float) -> None:
        self.host, self.port, secure = address(worker)
        self.authority = worker.partition("://")[2].encode()
        self._ssl = ssl.create_default_context() if secure else None
        self._connect_timeout = connect_timeout
        self._pool_idle = pool_idle
        self._idle: list[Exchange] = []  # the most recently used last
        self._closed = False

    async def send(self, method: bytes, target: bytes, headers: Iterable[Header], body: bytes) -> Exchange:
        """Send a request and return the exchange to read the response from.

        ``headers`` go out as they are, after the worker's own ``Host`` and without any length: that is added here.

        Raises:
            ExchangeError: kind ``connect``.
        """
        exchange = await self.open()
        self.write(exchange, method, target, headers, body)
        return exchange

    async def open(self) -> Exchange:
        """Return a connection, a kept one if there is one; it must be given back.

        Raises:
            ExchangeError: kind ``connect``.
        """
        return self._reuse() or await self._connect()

    def write(self, exchange: Exchange, method: bytes, target: bytes, headers: Iterable[Header], body: bytes) -> None:
        """Write a request on a connection of :meth:`open`; see :meth:`send`."""
        lines = [b"%b %b HTTP/1.1\r\nHost: %b" % (method, target, self.authority)]
        lines += [b"%b: %b" % header for header in headers]
        if body or method in (b"POST", b"PUT", b"PATCH"):
            lines.append(b"Content-Length: %d" % len(body))
        exchange.begin(b"\r\n".join(lines) + b"\r\n\r\n" + body, method == b"HEAD")

    def give_back(self, exchange: Exchange) -> None:
        """Return an exchange after use: a connection in good order is kept, any other is cut."""
        if exchange.reusable and not self._closed:
            exchange.rest()
            self._idle.append(exchange)
        else:
            exchange.abort()

    def close(self) -> None:
        """Close all unused connections, and those in use once they are given back."""
        self._closed = True
        while self._idle:
            self._idle.pop().abort()

    def _reuse(self) -> Exchange | None:
        now = asyncio.get_running_loop().time()
        while self._idle:
            exchange = self._idle.pop()
            if not exchange.closed and now - exchange.rested_at < self._pool_idle:
                return exchange
            exchange.abort()
        return None

    async def _connect(self) -> Exchange:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._connect_timeout):
                _, exchange = await loop.create_connection(Exchange, self.host, self.port, ssl=self._ssl)
        except (OSError, TimeoutError) as error:
            raise ExchangeError("connect") from error
        return exchange
