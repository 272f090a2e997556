"""The router's own calls to a worker: health, model names, abort, flush. Small, bounded, never retried."""

from __future__ import annotations

import asyncio
import json
from typing import Any, NamedTuple

from gaugeblock.reference.router.http1 import Header, end_to_end
from gaugeblock.reference.router.upstream import Upstream
from gaugeblock.reference.router.watch import ExchangeError


class Answer(NamedTuple):
    """A worker's whole answer."""

    status: int
    headers: list[Header]
    body: bytes

    def json(self) -> Any:
        """Return the body as JSON, None if it is none."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None


async def call(
    upstream: Upstream,
    method: bytes,
    target: bytes,
    timeout: float,
    *,
    body: bytes | None = None,
    api_key: str | None = None,
) -> Answer:
    """Send a small request, its body being JSON, and return the answer.

    Raises:
        ExchangeError: no whole answer within ``timeout`` seconds.
    """
    headers: list[Header] = [(b"Authorization", b"Bearer " + api_key.encode())] if api_key else []
    if body is not None:
        headers.append((b"Content-Type", b"application/json"))
    try:
        async with asyncio.timeout(timeout):
            exchange = await upstream.send(method, target, headers, body or b"")
            try:
                head = await exchange.read_head()
                return Answer(exchange.status, end_to_end(head), await exchange.whole_body())
            finally:
                upstream.give_back(exchange)
    except TimeoutError:
        raise ExchangeError("total") from None


async def try_call(
    upstream: Upstream,
    method: bytes,
    target: bytes,
    timeout: float,
    *,
    body: bytes | None = None,
    api_key: str | None = None,
) -> Answer | None:
    """As :func:`call`, but None for a broken exchange."""
    try:
        return await call(upstream, method, target, timeout, body=body, api_key=api_key)
    except ExchangeError:
        return None
