"""Lanes behind HTTP: the reference engine's own front, which knows nothing of them."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from gaugeblock.reference.engine.http.jsonio import to_json
from gaugeblock.reference.engine.http.server import build_app, listening_socket, run
from gaugeblock.reference.engine.types import EngineConfig
from gaugeblock.reference.hybrid.engine_lanes import DEFAULT_LANES, HybridEngine, load_lanes
from gaugeblock.reference.hybrid.http import QosHeaders


def hybrid_app(engine: HybridEngine, api_key: str | None = None) -> ASGIApp:
    """The application around started lanes; ``/health`` and ``/metrics`` tell of each of them."""

    async def health(_: Request) -> Response:
        """200 while a lane serves."""
        lanes = [state.report for state in engine.front.states]
        return Response(to_json({"lanes": lanes}), 200 if engine.serves else 503, media_type="application/json")

    app = build_app(engine, api_key)
    app.routes.insert(0, Route("/health", health, methods=["GET"]))  # before that of an engine alone
    app.state.front.metrics.registry.register(engine.front.metrics.registry)
    return QosHeaders(app)


def serve(config: EngineConfig, host: str, port: int, api_key: str | None = None, lanes: str | None = None) -> None:
    """Load the model once a lane and serve it until SIGTERM or SIGINT. ``lanes`` is a file, None for the default ones.

    Raises:
        OSError: the address cannot be had.
        ModelError: a folder cannot be served.
        ValueError: something in the file or in ``config`` is not legal.
    """
    specs, front = (DEFAULT_LANES, None) if lanes is None else load_lanes(lanes)
    with listening_socket(host, port) as bound:
        engine = HybridEngine(config, specs, front)
        engine.start()
        try:
            run(engine, bound, hybrid_app(engine, api_key), f", lanes {engine.about}")
        finally:
            engine.stop()
