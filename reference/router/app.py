"""The routes: what the router answers itself, and what goes to a worker."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from random import Random

from gaugeblock.reference.router.admin import Admin
from gaugeblock.reference.router.auth import Keys, with_worker_key
from gaugeblock.reference.router.config import RouterConfig
from gaugeblock.reference.router.front import Request
from gaugeblock.reference.router.metrics import Metrics
from gaugeblock.reference.router.policy_set import PolicySet
from gaugeblock.reference.router.proxy import Proxy
from gaugeblock.reference.router.registry import Registry
from gaugeblock.reference.router.reply import Reply
from gaugeblock.reference.router.rulebook import RuleBook
from gaugeblock.reference.router.view import FAMILIES
from gaugeblock.reference.router.warm import Warmer

Handler = Callable[[Request, Reply], Awaitable[None] | None]

FORWARDED = {
    **dict.fromkeys(("/generate", "/encode", "/classify", "/score", "/rerank", "/invocations"), (b"POST",)),
    **dict.fromkeys(("/tokenize", "/detokenize", "/v1/embeddings", *FAMILIES), (b"POST",)),
    **dict.fromkeys(("/get_model_info", "/model_info", "/get_server_info", "/server_info"), (b"GET",)),
    "/health_generate": (b"GET", b"HEAD"),
}
"""Paths that go to a worker, with their methods; so does everything else under ``/v1/``, with any method."""

OPEN = frozenset(("/health", "/liveness", "/readiness", "/ready"))
"""Own paths that ask for no key: balancers and kubelets have none."""
CLIENTS = frozenset(("/v1/models", "/abort_request"))
"""Own paths that ask for a client's key; all others ask for the admin's."""


class RouterApp:
    """The whole router but its listening socket. ``clock`` in seconds serves policies and breakers.

    Raises:
        ValueError: a key that the configuration names in ``environ`` or in a file is not there.
    """

    def __init__(
        self,
        config: RouterConfig,
        clock: Callable[[], float] = time.monotonic,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self.keys = Keys(config, environ)
        config = with_worker_key(config, environ)
        self.config = config
        self.policies = PolicySet(config)
        self.registry = Registry(config, clock, self.policies.forget)
        rng = Random(config.seed)
        self.rules = RuleBook(config, self.policies, self.registry, rng)
        self.proxy = Proxy(config, self.registry, self.policies, self.rules, rng, clock)
        self.warmer = Warmer(config, self.registry, self.policies, clock)
        self.proxy.hot = self.warmer.hot
        self.metrics = Metrics(self.registry, self.proxy, self.warmer)
        told = self.proxy.note_abort
        self.admin = Admin(config, self.registry, self.policies, self.rules, self.metrics, told)
        self._own: dict[str, dict[bytes, Handler]] = {**self.admin.routes(), "/prewarm": {b"POST": self.warmer.prewarm}}

    async def handle(self, request: Request, reply: Reply) -> None:
        """Answer one request."""
        own = self._own.get(request.path)
        if own is not None or request.path.startswith("/workers/"):
            if self._may_order(request, reply):
                await self._answer(own or self.admin.one_worker, request, reply)
        elif request.path in FORWARDED or request.path.startswith("/v1/"):
            known = self.keys.admit(request, reply) if self.keys.asks else request
            if known is not None:
                await self._forward(known, reply)
        else:
            reply.error(404, "Not Found", "unknown_path", "no such path; see /v1/models, /generate or /readiness")

    def _may_order(self, request: Request, reply: Reply) -> bool:
        """Whether the router itself may answer a request; if not it has been refused."""
        if request.path in OPEN:
            return True
        if request.path in CLIENTS:
            return not self.keys.asks or self.keys.admit(request, reply) is not None
        return not self.keys.asks_admin or self.keys.admit_admin(request, reply)

    async def _answer(self, own: Handler | dict[bytes, Handler], request: Request, reply: Reply) -> None:
        handler = own if callable(own) else own.get(b"GET" if request.method == b"HEAD" else request.method)
        if handler is None:
            assert not callable(own)
            _refuse_method(reply, tuple(own))
            return
        pending = handler(request, reply)
        if pending is not None:
            await pending

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


def _refuse_method(reply: Reply, methods: tuple[bytes, ...]) -> None:
    allowed = b", ".join(methods)
    message = f"this path takes {allowed.decode()}"
    reply.error(405, "Method Not Allowed", "method_not_allowed", message, headers=[(b"Allow", allowed)])
