"""Middleware before every endpoint: the API key, and how large and how slow a body may be."""

from __future__ import annotations

import asyncio
import hmac

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gaugeblock.reference.engine.http.errors import ApiError, error_response

MAX_BODY_BYTES = 8 * 2**20
DRAINED = 8  # times the limit that is read and dropped, so that the client gets to see its 413
BODY_SECONDS = 60.0
OPEN_PATHS = frozenset({"/health", "/health_generate", "/metrics"})  # what probes and scrapers without a key ask


class ApiKey:
    """Asks for ``Authorization: Bearer KEY`` on all but the open paths."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self.app, self.expected = app, b"Bearer " + key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, or answer 401."""
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS or self._given(scope):
            await self.app(scope, receive, send)
            return
        error = ApiError(
            401,
            "a valid API key is needed: send the header 'Authorization: Bearer <key>'",
            headers={"WWW-Authenticate": "Bearer"},
        )
        await error_response(error)(scope, receive, send)

    def _given(self, scope: Scope) -> bool:
        given = dict(scope["headers"]).get(b"authorization", b"")
        return hmac.compare_digest(given, self.expected)


class BodyLimit:
    """Reads the body before the endpoint does: 413 when too large, 408 when too slow."""

    def __init__(self, app: ASGIApp, limit: int = MAX_BODY_BYTES, seconds: float = BODY_SECONDS) -> None:
        self.app, self.limit, self.seconds = app, limit, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on with the body in hand, or answer an error."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            await self.app(scope, receive, send)
            return
        try:
            body = await self._read(scope, receive)
        except ApiError as error:
            await error_response(error)(scope, receive, send)
            return
        if body is not None:
            await self.app(scope, _replayed(body, receive), send)

    async def _read(self, scope: Scope, receive: Receive) -> bytes | None:
        """The whole body; None when the client left."""
        declared = dict(scope["headers"]).get(b"content-length", b"")
        if declared.isdigit() and int(declared) > self.limit * DRAINED:
            raise self._too_large()
        chunks: list[bytes] = []
        size, more = 0, True
        try:
            async with asyncio.timeout(self.seconds):
                while more and size <= self.limit * DRAINED:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    chunk, more = message.get("body", b""), message.get("more_body", False)
                    size += len(chunk)
                    chunks.append(chunk)
                    if size > self.limit:
                        chunks.clear()
        except TimeoutError:
            raise ApiError(408, f"the body did not arrive within {self.seconds:g} s") from None
        if size > self.limit:
            raise self._too_large()
        return b"".join(chunks)

    def _too_large(self) -> ApiError:
        return ApiError(413, f"the body is larger than {self.limit} bytes", headers={"Connection": "close"})


def _replayed(body: bytes, receive: Receive) -> Receive:
    """A ``receive`` that yields ``body`` first and then what the server has to say: a disconnect."""
    first: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return first.pop() if first else await receive()

    return replay
