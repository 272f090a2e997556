"""The routes: what the router answers itself, and what goes to a worker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from random import Random

from gaugeblock.reference.router.admin import Admin
from gaugeblock.reference.router.config import RouterConfig
from gaugeblock.reference.router.front import Request
from gaugeblock.reference.router.metrics import Metrics
from gaugeblock.reference.router.policies import make_policy
from gaugeblock.reference.router.policies.base import Policy, PolicySettings
from gaugeblock.reference.router.policies.session import SessionAffinity
from gaugeblock.reference.router.proxy import Proxy
from gaugeblock.reference.router.registry import Registry
from gaugeblock.reference.router.reply import Reply
from gaugeblock.reference.router.view import FAMILIES

Handler = Callable[[Request, Reply], Awaitable[None] | None]

FORWARDED = {
    **dict.fromkeys(("/generate", "/encode", "/classify", "/score", "/rerank", "/invocations"), (b"POST",)),
    **dict.fromkeys(("/tokenize", "/detokenize", "/v1/embeddings", *FAMILIES), (b"POST",)),
    **dict.fromkeys(("/get_model_info", "/model_info", "/get_server_info", "/server_info"), (b"GET",)),
    "/health_generate": (b"GET", b"HEAD"),
}
"""Paths that go to a worker, with their methods; so does everything else under ``/v1/``, with any method."""


class RouterApp:
    """The whole router but its listening socket. ``clock`` in seconds serves policies and breakers."""

    def __init__(self, config: RouterConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self.config = config
        self.policy = build_policy(config)
        decode_policy = make_policy(config.decode_policy, _settings(config))
        self.registry = Registry(config, clock, lambda worker: self._forget(worker, decode_policy))
        self.proxy = Proxy(config, self.registry, self.policy, decode_policy, Random(config.seed), clock)
        self.metrics = Metrics(self.registry, self.proxy)
        self.admin = Admin(config, self.registry, self.policy, self.metrics)
        self._own = self.admin.routes()

    async def handle(self, request: Request, reply: Reply) -> None:
        """Answer one request."""
        own = self._own.get(request.path)
        if own is not None or request.path.startswith("/workers/"):
            await self._answer(own or self.admin.one_worker, request, reply)
        elif request.path in FORWARDED or request.path.startswith("/v1/"):
            await self._forward(request, reply)
        else:
            reply.error(404, "Not Found", "unknown_path", "no such path; see /v1/models, /generate or /readiness")

    async def _answer(self, own: Handler | dict[bytes, Handler], request: Request, reply: Reply) -> None:
        handler = own if callable(own) else own.get(b"GET" if request.method == b"HEAD" else request.method)
        if handler is None:
            assert not callable(own)
            _refuse_method(reply, tuple(own))
            return
        pending = handler(request, reply)
        if pending is not None:
            await pending

    def _forget(self, worker: str, decode_policy: Policy) -> None:
        self.policy.forget(worker)
        decode_policy.forget(worker)

    async def _forward(self, request: Request, reply: Reply) -> None:
        methods = FORWARDED.get(request.path)
        if methods is not None and request.method not in methods and not request.path.startswith("/v1/responses"):
            _refuse_method(reply, methods)
            return
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            await self.proxy.forward(request, reply)
        finally:
            self.metrics.note(request.path if methods is not None else "other", reply.status, clock() - began)


def build_policy(config: RouterConfig) -> Policy:
    """Return the configured policy, with session affinity on top if asked for and not in it."""
    settings = _settings(config)
    base = make_policy(config.policy, settings)
    return SessionAffinity(base, settings) if config.session_affinity and not base.keeps_sessions else base


def _settings(config: RouterConfig) -> PolicySettings:
    return PolicySettings(**{name: getattr(config, name) for name in PolicySettings._fields})


def _refuse_method(reply: Reply, methods: tuple[bytes, ...]) -> None:
    allowed = b", ".join(methods)
    message = f"this path takes {allowed.decode()}"
    reply.error(405, "Method Not Allowed", "method_not_allowed", message, headers=[(b"Allow", allowed)])
