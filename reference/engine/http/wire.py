"""Answers that notice when their client leaves: whole ones and server-sent events."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from gaugeblock.reference.engine.http.errors import ApiError, ClientGone, error_body, error_response
from gaugeblock.reference.engine.http.generation import Generation
from gaugeblock.reference.engine.http.jsonio import to_json

T = TypeVar("T")
DONE = b"data: [DONE]\n\n"
log = logging.getLogger(__name__)


def json_response(data: Any) -> Response:
    """``data`` with status 200."""
    return Response(to_json(data), media_type="application/json")


def frame(data: Any, event: str | None = None) -> bytes:
    """One server-sent event."""
    name = b"" if event is None else b"event: " + event.encode() + b"\n"
    return name + b"data: " + to_json(data) + b"\n\n"


def error_frame(error: ApiError) -> bytes:
    """The last frame but ``[DONE]`` of a stream that failed after its first byte."""
    return frame({"error": error_body(error.status, error.message, error.param)})


async def until_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Return what ``work`` returns, or cancel it as soon as the client disconnects.

    Raises:
        ClientGone: the client left first.
    """
    task, watch = asyncio.ensure_future(work), asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return task.result()
    finally:
        for each in (task, watch):
            each.cancel()
        await asyncio.gather(task, watch, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def whole(receive: Receive, generation: Generation) -> Generation:
    """Run ``generation`` to its end; it is aborted when the client leaves."""
    async with generation:
        await until_gone(receive, generation.finish())
    return generation


class EventStream(StreamingResponse):
    """Streams ``frames`` of ``generation``, which is aborted when the client leaves.

    ``ending`` makes the last bytes of a stream that fails; ``closed`` is called at the end, whichever way it comes.
    """

    def __init__(
        self,
        generation: Generation,
        frames: AsyncIterator[bytes],
        ending: Callable[[ApiError], bytes] = lambda error: error_frame(error) + DONE,
        closed: Callable[[], None] = lambda: None,
    ) -> None:
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(frames, headers=headers, media_type="text/event-stream")
        self.generation, self.frames = generation, frames
        self.ending, self.closed = ending, closed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream."""
        try:
            async with self.generation:
                with contextlib.suppress(ClientGone):
                    await until_gone(receive, self._answer(scope, receive, send))
        finally:
            self.closed()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            first = await anext(self.frames)  # what fails before the first byte still gets a status of its own
        except ApiError as error:
            await error_response(error)(scope, receive, send)
            return
        await self._send(first, send)

    async def _send(self, first: bytes, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": first, "more_body": True})
        try:
            async for chunk in self.frames:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        except ApiError as error:
            await send({"type": "http.response.body", "body": self.ending(error), "more_body": True})
        except Exception:
            log.exception("a stream failed")  # its status has gone out: the last frame tells the client
            failed = ApiError(500, "the stream failed; the engine's log says where")
            await send({"type": "http.response.body", "body": self.ending(failed), "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
