"""Passing a worker's response on, byte for byte, and ending it honestly when the worker does not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gaugeblock.reference.router.breaker import Outcome
from gaugeblock.reference.router.config import RouterConfig
from gaugeblock.reference.router.exchange import Exchange
from gaugeblock.reference.router.http1 import Head, Header, end_to_end
from gaugeblock.reference.router.reply import Reply
from gaugeblock.reference.router.sse import EventGuard, error_event
from gaugeblock.reference.router.view import Reading
from gaugeblock.reference.router.watch import ExchangeError

_ENDS_WITH_DONE = frozenset(("native", "openai"))  # the other families end with an event of their own


async def relay(
    exchange: Exchange,
    reply: Reply,
    receipt: list[Header],
    reading: Reading,
    config: RouterConfig,
    edit: Callable[[bytes], bytes] | None = None,
) -> Outcome:
    """Pass the response on and return how the worker did, judged at the end.

    ``edit`` changes a whole JSON body, or whole server-sent events; without it every byte stays.

    Raises:
        ExchangeError: the worker broke; ``reply.started`` tells whether the client has got anything.
    """
    head = exchange.head
    assert head is not None
    guard = _guard(exchange, head, reading)
    if edit is not None and guard is None:
        return await _whole_edited(exchange, head, reply, receipt, edit)
    if guard is None and (exchange.done or 0 <= (exchange.length or -1) <= config.hold_bytes):
        body = await exchange.whole_body()
        _begin(exchange, head, reply, receipt, guard)
        reply.write(body)
        reply.end()
        return judge(exchange.status)
    await exchange.body_within(config.head_hold)
    if guard is not None and guard.done_required and exchange.done and not exchange.got_body:
        raise ExchangeError("truncated")
    _begin(exchange, head, reply, receipt, guard)
    reply.write(b"")
    while piece := await exchange.read_body():
        whole = guard.feed(piece) if guard is not None else piece
        reply.write(edit(whole) if edit is not None else whole)
        if reply.congested:
            await _catch_up(reply, config)
    return _end(exchange, reply, guard, reading)


async def _whole_edited(
    exchange: Exchange, head: Head, reply: Reply, receipt: list[Header], edit: Callable[[bytes], bytes]
) -> Outcome:
    body = edit(await exchange.whole_body())
    headers = [header for header in end_to_end(head) if header[0].lower() != b"content-length"]
    headers += [(b"Content-Length", b"%d" % len(body)), *receipt]
    reply.begin(exchange.status, head.first[2], headers, len(body))
    reply.write(body)
    reply.end()
    return judge(exchange.status)


def judge(status: int) -> Outcome:
    """Score a whole answer: a 4xx is the client's doing."""
    return Outcome.FAULT if status >= 500 else Outcome.NEUTRAL if status >= 400 else Outcome.SUCCESS


def tell_break(reply: Reply, reading: Reading, status: int, code: str, message: str) -> None:
    """End a response that has begun and cannot be finished; nothing if it has not begun or the client has left."""
    if not reply.started or reply.ended or not reply.connected:
        return
    if reply.events:
        reply.write(error_event(reading.family, status, code, message))
        reply.end()
    else:
        reply.abort()


def _begin(exchange: Exchange, head: Head, reply: Reply, receipt: list[Header], guard: EventGuard | None) -> None:
    length = None if exchange.length == -1 else exchange.length
    reply.events = guard is not None and length is None
    reply.begin(exchange.status, head.first[2], [*end_to_end(head), *receipt], length)


def _guard(exchange: Exchange, head: Head, reading: Reading) -> EventGuard | None:
    """Return a guard if the body is server-sent events that the router can read."""
    kind = head.fields.get(b"content-type", b"").lower()
    if not kind.startswith(b"text/event-stream") or b"content-encoding" in head.fields:
        return None
    return EventGuard(exchange.status == 200 and reading.family in _ENDS_WITH_DONE)


async def _catch_up(reply: Reply, config: RouterConfig) -> None:
    """Wait for a slow client, but not for ever: then it counts as gone."""
    try:
        async with asyncio.timeout(config.idle_timeout):
            await reply.drain()
    except TimeoutError:
        reply.abort()
        raise asyncio.CancelledError from None


def _end(exchange: Exchange, reply: Reply, guard: EventGuard | None, reading: Reading) -> Outcome:
    if guard is None:
        reply.end()
        return judge(exchange.status)
    rest = guard.rest()
    reply.write(rest)
    if guard.complete:
        reply.end()
        return judge(exchange.status)
    if guard.failed:
        reply.end()
        return Outcome.FAULT
    if rest:
        reply.write(b"\n\n")
    tell_break(reply, reading, 502, "worker_truncated", "the worker ended its stream before the end of the answer")
    return Outcome.FAULT
