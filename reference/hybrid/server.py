"""Lanes behind HTTP: the reference engine's own front, which knows nothing of them."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.types import ASGIApp

from gaugeblock.reference.engine.http.server import build_app, listening_socket, run
from gaugeblock.reference.engine.types import EngineConfig
from gaugeblock.reference.hybrid.engine_lanes import DEFAULT_LANES, HybridEngine, load_lanes
from gaugeblock.reference.hybrid.http import QosHeaders


def hybrid_app(engine: HybridEngine, api_key: str | None = None) -> ASGIApp:
    """The application around started lanes; ``/metrics`` has theirs too."""
    return _with_lanes(engine, build_app(engine, api_key))


def _with_lanes(engine: HybridEngine, app: Starlette) -> ASGIApp:
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
            run(engine, bound, hybrid_app(engine, api_key))
        finally:
            engine.stop()
