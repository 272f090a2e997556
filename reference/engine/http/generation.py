"""The sequences of one HTTP request: submitted together, awaited together, aborted together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Self

from gaugeblock.reference.engine.http.answers import Answer, Update
from gaugeblock.reference.engine.http.errors import ApiError
from gaugeblock.reference.engine.http.mailbox import Mailbox
from gaugeblock.reference.engine.http.protocol import EngineLike
from gaugeblock.reference.engine.types import Finish, TokenEvent

HEALTH_INTERVAL = 1.0  # seconds without an event after which the scheduler is asked whether it lives


def dead() -> ApiError:
    """The answer to a request that the engine did not live to finish."""
    return ApiError(503, "the engine stopped before the answer was complete")


def failure(finish: Finish) -> ApiError:
    """The answer to a request whose end says that it is an error."""
    status = finish.status or 500
    headers = {"Retry-After": "1"} if status in (429, 503) else None
    return ApiError(status, finish.message or "the request was aborted", headers=headers)


class Generation:
    """Runs from construction; leaving its ``async with`` block aborts what has not finished.

    ``closed`` is called once at the end, whichever way it comes.
    """

    def __init__(
        self, engine: EngineLike, mailbox: Mailbox, answers: list[Answer], closed: Callable[[Generation], None]
    ) -> None:
        self.engine, self.mailbox, self.answers, self._on_close = engine, mailbox, answers, closed
        self._by_rid = {answer.rid: answer for answer in answers}
        self._events: list[TokenEvent] = []
        self._arrived = asyncio.Event()
        self._closed = False
        self._begun: set[str] = set()
        try:
            for answer in answers:
                mailbox.open(answer.rid, self._receive)
                engine.submit(answer.request, mailbox.post)
                self._begun.add(answer.rid)
        except BaseException:
            self.close()
            raise

    @property
    def finished(self) -> bool:
        """Whether every sequence has ended."""
        return all(answer.finish is not None for answer in self.answers)

    def _receive(self, event: TokenEvent) -> None:
        self._events.append(event)
        self._arrived.set()

    async def updates(self) -> AsyncIterator[list[Update]]:
        """Yield what arrived, for each sequence that something arrived for, until all have ended.

        Raises:
            ApiError: 503, the engine died; an answer that it cut short is no answer. Or as the end of a sequence says.
        """
        seen: set[str] = set()
        while not self.finished:
            await self._wait()
            events, self._events = self._events, []
            touched: dict[str, tuple[int, int]] = {}  # rid -> text length and token count before
            for event in events:
                answer = self._by_rid[event.rid]
                touched.setdefault(event.rid, (len(answer.text), len(answer.output_ids)))
                answer.take(event)
            failed = next((event.finish for event in events if event.finish and event.finish.status), None)
            if failed is not None:
                raise failure(failed)
            if not self.engine.healthy and any(event.finish and event.finish.type == "abort" for event in events):
                raise dead()
            yield [self._update(rid, *before, rid not in seen) for rid, before in touched.items()]
            seen.update(touched)

    def _update(self, rid: str, length: int, count: int, first: bool) -> Update:
        answer = self._by_rid[rid]
        return Update(answer, answer.text[length:], len(answer.output_ids) - count, first)

    async def _wait(self) -> None:
        while not self._events:
            self._arrived.clear()
            try:
                async with asyncio.timeout(HEALTH_INTERVAL):
                    await self._arrived.wait()
            except TimeoutError:
                if not self.engine.healthy:
                    raise dead() from None

    async def finish(self) -> list[Answer]:
        """Wait for the end of every sequence."""
        async for _ in self.updates():
            pass
        return self.answers

    def close(self) -> None:
        """Abort what has not finished and stop listening."""
        if self._closed:
            return
        self._closed = True
        for answer in self.answers:
            self.mailbox.close(answer.rid)
            if answer.finish is None and answer.rid in self._begun:
                self.engine.abort(answer.rid)
        self._on_close(self)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
