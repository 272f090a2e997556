"""The reference engine behind HTTP: the application, and a server that ends gracefully."""

from __future__ import annotations

import asyncio
import gc
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import FrameType

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Route
from starlette.types import ASGIApp

from gaugeblock.reference.engine.http import chat, completions, control, models, native, responses, tokens
from gaugeblock.reference.engine.http.errors import HANDLERS
from gaugeblock.reference.engine.http.front import Front
from gaugeblock.reference.engine.http.limits import MAX_BODY_BYTES, ApiKey, BodyLimit
from gaugeblock.reference.engine.http.metrics import CountResponses
from gaugeblock.reference.engine.http.protocol import EngineLike, served_name
from gaugeblock.reference.engine.types import EngineConfig

GRACE_SECONDS = 10.0  # what runs at SIGTERM may go on so long; then it ends with finish reason abort
ALLOCATIONS = 1_000_000
"""Objects that are made before Python looks for cycles, 700 by default: log-probabilities of one batch are more than a
million, and to walk over all that are alive again and again takes longer than all else that is done with them."""
AFTER_GRACE_SECONDS = 3  # for the last bytes to go out

GET, POST, BOTH = ["GET"], ["POST"], ["GET", "POST"]
ROUTES = [
    Route("/health", control.health, methods=GET),
    Route("/health_generate", control.health_generate, methods=GET),
    Route("/get_model_info", control.model_info, methods=GET),
    Route("/model_info", control.model_info, methods=GET),
    Route("/get_server_info", control.server_info, methods=GET),
    Route("/server_info", control.server_info, methods=GET),
    Route("/get_load", control.get_load, methods=GET),
    Route("/v1/loads", control.loads, methods=GET),
    Route("/metrics", control.metrics, methods=GET),
    Route("/flush_cache", control.flush_cache, methods=BOTH),
    Route("/abort_request", control.abort_request, methods=POST),
    Route("/generate", native.generate, methods=POST),
    Route("/tokenize", tokens.tokenize, methods=POST),
    Route("/v1/tokenize", tokens.tokenize, methods=POST),
    Route("/detokenize", tokens.detokenize, methods=POST),
    Route("/v1/detokenize", tokens.detokenize, methods=POST),
    Route("/v1/models", models.models, methods=GET),
    Route("/v1/models/{model_id:path}", models.model, methods=GET),
    Route("/v1/completions", completions.completions, methods=POST),
    Route("/v1/chat/completions", chat.chat_completions, methods=POST),
    Route("/v1/responses", responses.create, methods=POST),
    Route("/v1/responses/{response_id}", responses.retrieve, methods=GET),
    Route("/v1/responses/{response_id}/cancel", responses.cancel, methods=POST),
]


def build_app(engine: EngineLike, api_key: str | None = None, max_body_bytes: int = MAX_BODY_BYTES) -> Starlette:
    """The application around a started engine. With ``api_key`` all but health and metrics ask for it."""
    front = Front(engine)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await front.shut_down()

    middleware = [
        Middleware(CountResponses, front.metrics),
        *([Middleware(ApiKey, api_key)] if api_key else []),
        Middleware(BodyLimit, max_body_bytes),
    ]
    app = Starlette(routes=ROUTES, middleware=middleware, exception_handlers=HANDLERS, lifespan=lifespan)
    app.state.front = front
    return app


class Server(uvicorn.Server):
    """Prints one line when it accepts connections; at SIGTERM or SIGINT lets streams end, then aborts them."""

    def __init__(self, config: uvicorn.Config, engine: EngineLike, ready: str) -> None:
        super().__init__(config)
        self.engine, self.ready = engine, ready
        self._signals = 0
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then say so."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        if self.started:
            print(self.ready, flush=True)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening and wait for what runs, for a bounded time."""
        stats = self.engine.stats()
        count = stats.running + stats.queued
        if count:
            what, whom = ("1 request", "it") if count == 1 else (f"{count} requests", "them")
            note = f"gaugeblock: {what} may run on for {GRACE_SECONDS:g} s; Ctrl-C ends {whom} now"
            print(note, file=sys.stderr, flush=True)
        asyncio.get_running_loop().call_later(GRACE_SECONDS, self.engine.abort, None)
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Ask for a graceful end; a second signal aborts what runs, a third one waits for nobody."""
        self._signals += 1
        self.should_exit = True
        self.force_exit = self._signals > 2
        if self._signals == 2 and self._loop is not None:
            self._loop.call_soon_threadsafe(self.engine.abort, None)


def listening_socket(host: str, port: int) -> socket.socket:
    """A bound socket; port 0 takes a free one.

    Raises:
        OSError: the address cannot be had; the message names it.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise OSError(error.errno, f"cannot listen on {host}:{port}: {error.strerror}") from None
    return bound


def serve(config: EngineConfig, host: str, port: int, api_key: str | None = None) -> None:
    """Load the model and serve it until SIGTERM or SIGINT. One line is printed when it is ready.

    Raises:
        OSError: the address cannot be had.
        ModelError: the folder cannot be served.
        ConfigError: a field of ``config`` is out of range.
    """
    from gaugeblock.reference.engine.engine import Engine  # torch is loaded only to serve

    with listening_socket(host, port) as bound:
        engine = Engine(config)
        engine.start()
        try:
            run(engine, bound, build_app(engine, api_key))
        finally:
            engine.stop()


def run(engine: EngineLike, bound: socket.socket, app: ASGIApp, about: str = "") -> None:
    """Serve a started engine's application on a bound socket until SIGTERM or SIGINT; ``about`` ends the ready line.

    The process is the server's own from then on: what is loaded by now is never looked through for garbage again.
    """
    gc.freeze()
    gc.set_threshold(ALLOCATIONS, *gc.get_threshold()[1:])
    host, port = bound.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    ready = f"gaugeblock engine ready on http://{shown}:{port} model {served_name(engine.config)}{about}"
    settings = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=int(GRACE_SECONDS) + AFTER_GRACE_SECONDS,
        server_header=False,
    )
    Server(settings, engine, ready).run(sockets=[bound])
