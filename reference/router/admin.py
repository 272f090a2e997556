"""The router's own endpoints: is it alive, is it ready, who works, how much, and orders to all workers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs, unquote

from gaugeblock.reference.router.calls import try_call
from gaugeblock.reference.router.config import RouterConfig
from gaugeblock.reference.router.front import Request
from gaugeblock.reference.router.metrics import CONTENT_TYPE, Metrics
from gaugeblock.reference.router.policy_set import PolicySet
from gaugeblock.reference.router.registry import Registry
from gaugeblock.reference.router.reply import Reply
from gaugeblock.reference.router.rulebook import RuleBook
from gaugeblock.reference.router.spec import WorkerSpec
from gaugeblock.reference.router.view import json_object
from gaugeblock.reference.router.worker import Health, Worker

Handler = Callable[[Request, Reply], Awaitable[None] | None]


class Admin:
    """Handlers of the router's own paths."""

    def __init__(
        self,
        config: RouterConfig,
        registry: Registry,
        policies: PolicySet,
        book: RuleBook,
        metrics: Metrics,
        aborted: Callable[[str], None],
    ) -> None:
        self._config, self._registry, self._metrics = config, registry, metrics
        self._policies, self._book = policies, book
        self._aborted = aborted  # told the id of every request that a client aborts

    def routes(self) -> dict[str, dict[bytes, Handler]]:
        """Return the handlers by path and method; GET answers HEAD too."""
        return {
            "/health": {b"GET": self.alive},
            "/liveness": {b"GET": self.alive},
            "/readiness": {b"GET": self.readiness},
            "/ready": {b"GET": self.readiness},
            "/workers": {b"GET": self.list_workers, b"POST": self.add_worker},
            "/rules": {b"GET": self.list_rules, b"POST": self.reload},
            "/get_loads": {b"GET": self.loads},
            "/metrics": {b"GET": self.expose},
            "/v1/models": {b"GET": self.models},
            "/flush_cache": {b"GET": self.flush, b"POST": self.flush},
            "/abort_request": {b"POST": self.abort},
        }

    def alive(self, request: Request, reply: Reply) -> None:
        """The process answers. Whether it can serve is for ``/readiness``; the body says it too."""
        reply.json(200, "OK", {"status": "alive", "ready": self._registry.readiness()["ready"]})

    def readiness(self, request: Request, reply: Reply) -> None:
        """200 only if a request, for ``?model=`` and ``?pool=`` if given, would be served now."""
        asked = parse_qs(request.query)
        model, pool = asked.get("model", [None])[0], asked.get("pool", [None])[0]
        state = self._registry.readiness(model, pool)
        if state["ready"]:
            reply.json(200, "OK", state)
        else:
            wait = self._registry.retry_after(model, pool)
            reply.json(503, "Service Unavailable", state, [(b"Retry-After", b"%d" % wait)])

    def list_workers(self, request: Request, reply: Reply) -> None:
        """All workers and their states."""
        workers = [worker.describe() for worker in self._registry.workers.values()]
        reply.json(200, "OK", {"workers": workers, "total": len(workers)})

    def add_worker(self, request: Request, reply: Reply) -> None:
        """Add ``{"url": …}`` with any field of ``WorkerSpec``; 200 if it is known.

        202 if it is new: traffic waits for its first good health check.
        """
        data = json_object(request.body)
        if data is None:
            reply.error(400, "Bad Request", "bad_worker", 'the body must be {"url": "http://HOST:PORT"}')
            return
        try:
            worker, new = self._registry.add(WorkerSpec.of(data))
        except ValueError as error:
            reply.error(400, "Bad Request", "bad_worker", str(error))
            return
        reply.json(202 if new else 200, "Accepted" if new else "OK", worker.describe())

    def one_worker(self, request: Request, reply: Reply) -> None:
        """``/workers/{id}``, the id percent-encoded or plain: GET its state, DELETE it with a drain."""
        url = unquote(request.path.removeprefix("/workers/"))
        if request.method not in (b"GET", b"HEAD", b"DELETE"):
            reply.error(405, "Method Not Allowed", "method_not_allowed", "this path takes GET, DELETE")
            return
        worker = self._registry.drain(url) if request.method == b"DELETE" else self._registry.find(url)
        if worker is None:
            reply.error(404, "Not Found", "unknown_worker", "no such worker; GET /workers lists them")
        elif request.method == b"DELETE" and worker.in_flight:
            reply.json(202, "Accepted", worker.describe())
        else:
            reply.json(200, "OK", worker.describe())

    def list_rules(self, request: Request, reply: Reply) -> None:
        """The rules and experiments in force, by name."""
        reply.json(200, "OK", self._book.describe())

    def reload(self, request: Request, reply: Reply) -> None:
        """Take rules and experiments from the body (TOML), or without one from the configuration file, or leave all."""
        try:
            self._book.reload(request.body)
        except ValueError as error:
            reply.error(400, "Bad Request", "bad_rules", f"{error}; the rules in force are unchanged")
            return
        reply.json(200, "OK", self._book.describe())

    def loads(self, request: Request, reply: Reply) -> None:
        """Requests in flight by worker, as this router counts them."""
        workers = self._registry.workers.values()
        reply.json(200, "OK", {"workers": [{"worker": worker.id, "load": worker.in_flight} for worker in workers]})

    def expose(self, request: Request, reply: Reply) -> None:
        """Prometheus metrics."""
        reply.whole(200, "OK", self._metrics.expose(), CONTENT_TYPE)

    def models(self, request: Request, reply: Reply) -> None:
        """The union of what the healthy workers list."""
        entries: dict[str, Any] = {}
        for worker in self._registry.workers.values():
            if worker.health is Health.HEALTHY:
                for entry in worker.model_entries:
                    entries.setdefault(entry["id"], entry)
        reply.json(200, "OK", {"object": "list", "data": list(entries.values())})

    async def flush(self, request: Request, reply: Reply) -> None:
        """Flush all workers' caches: 200 only if every one did."""
        done = await self._tell_all(b"/flush_cache", None)
        for worker in done:
            for name in worker.names:
                self._policies.forget(name)
        self._sum_up(reply, "flushed", len(done))

    async def abort(self, request: Request, reply: Reply) -> None:
        """Pass an abort on to all workers: which one has the request is theirs to know."""
        data = json_object(request.body)
        if data is None:
            reply.error(400, "Bad Request", "bad_abort", 'the body must be {"rid": …}')
            return
        if isinstance(data.get("rid"), str):
            self._aborted(data["rid"])
        self._sum_up(reply, "told", len(await self._tell_all(b"/abort_request", request.body)))

    async def _tell_all(self, target: bytes, body: bytes | None) -> list[Worker]:
        """POST to all workers at once; returns those that answered 200."""
        workers = list(self._registry.workers.values())
        timeout, key = self._config.admin_timeout, self._config.worker_api_key
        answers = await asyncio.gather(
            *(try_call(worker.upstream, b"POST", target, timeout, body=body, api_key=key) for worker in workers)
        )
        return [w for w, answer in zip(workers, answers, strict=True) if answer is not None and answer.status == 200]

    def _sum_up(self, reply: Reply, verb: str, done: int) -> None:
        total = len(self._registry.workers)
        good = done == total and total > 0
        status, reason = (200, "OK") if good else (502, "Bad Gateway") if total else (503, "Service Unavailable")
        reply.json(status, reason, {"success": good, verb: done, "failed": total - done, "total": total})
