"""Forwarding: pick a worker, pass the bytes both ways, retry only while the client has got nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from gaugeblock.reference.router.breaker import Outcome
from gaugeblock.reference.router.calls import try_call
from gaugeblock.reference.router.config import RouterConfig
from gaugeblock.reference.router.exchange import Exchange
from gaugeblock.reference.router.front import Request
from gaugeblock.reference.router.http1 import Header, end_to_end
from gaugeblock.reference.router.policies.base import Decision, Policy, WorkerView
from gaugeblock.reference.router.registry import Registry
from gaugeblock.reference.router.relay import relay, tell_break
from gaugeblock.reference.router.reply import Reply
from gaugeblock.reference.router.retry import RetryBudget
from gaugeblock.reference.router.view import Reading, read
from gaugeblock.reference.router.watch import ExchangeError, FailureKind
from gaugeblock.reference.router.worker import Lease, Worker

RETRY_STATUS = frozenset((502, 503, 504))
_NOT_FORWARDED = frozenset((b"host", b"content-length", b"expect"))  # ours to say: the first two are written anew
_FAILURES: dict[FailureKind, tuple[int, str, str, str]] = {
    "connect": (503, "Service Unavailable", "no_available_worker", "no worker could be reached"),
    "reset": (502, "Bad Gateway", "worker_reset", "the worker closed the connection before it answered"),
    "malformed": (502, "Bad Gateway", "worker_malformed", "the worker's answer is not valid HTTP"),
    "truncated": (502, "Bad Gateway", "worker_truncated", "the worker ended its answer too early"),
    "idle": (504, "Gateway Timeout", "idle_timeout", "the worker was silent for too long"),
    "total": (504, "Gateway Timeout", "total_timeout", "the request took too long"),
}
_RETRIED: frozenset[FailureKind] = frozenset(("connect", "reset", "malformed", "truncated"))


@dataclass
class Journey:
    """One request on its way: what was read of it, which workers it has seen, and when it must be over."""

    request: Request
    reply: Reply
    reading: Reading
    deadline: float | None
    tried: set[str] = field(default_factory=set)
    decision: Decision | None = None

    def receipt(self, *, worker: bool = True) -> list[Header]:
        """Return the route receipt. An error of the router's own does not name the worker."""
        decision = self.decision
        if decision is None:
            return [(b"x-gaugeblock-reason", b"no_worker"), (b"x-gaugeblock-attempts", b"0")]
        return [
            *([(b"x-gaugeblock-worker", decision.worker.encode())] if worker else []),
            (b"x-gaugeblock-policy", decision.policy.encode()),
            (b"x-gaugeblock-reason", decision.reason.encode()),
            (b"x-gaugeblock-attempts", b"%d" % len(self.tried)),
            (b"x-gaugeblock-predicted-prefix", b"%d" % decision.matched),
        ]


class Proxy:
    """Forwards requests. ``clock`` is the policies' clock in seconds, ``rng`` their dice."""

    def __init__(
        self, config: RouterConfig, registry: Registry, policy: Policy, rng: Random, clock: Callable[[], float]
    ) -> None:
        self._config, self._registry, self._policy = config, registry, policy
        self._rng, self._clock = rng, clock
        self._budget = RetryBudget(config.retry_ratio, config.retry_burst)
        self._session_headers = [name.lower().encode() for name in config.session_headers]
        self._max_prompt = config.max_prefix_bytes if policy.reads_prompt else 0
        self._orphans: set[asyncio.Task[object]] = set()
        self.retries = 0

    async def forward(self, request: Request, reply: Reply) -> None:
        """Serve one request from its routing view to the last byte of its answer."""
        reading = read(request.path, request.head.fields, request.body, self._session_headers, self._max_prompt)
        total = self._config.total_timeout
        deadline = None if total is None else asyncio.get_running_loop().time() + total
        journey = Journey(request, reply, reading, deadline)
        if not self._registry.knows(reading.view.model):
            self._refuse_model(journey)
            return
        self._budget.refill()
        while await self._attempt(journey):
            self.retries += 1

    async def _attempt(self, journey: Journey) -> bool:
        """Try one worker; returns whether another one should be tried."""
        worker = self._pick(journey)
        if worker is None:
            self._refuse(journey)
            return False
        exchange: Exchange | None = None
        with Lease(worker) as lease:
            try:
                exchange = await self._send(worker, journey)
                if exchange.status in RETRY_STATUS and self._may_retry(journey):
                    lease.score(Outcome.FAULT)
                    self._abort_orphan(worker, journey.reading)
                    return True
                lease.score(await relay(exchange, journey.reply, journey.receipt(), journey.reading, self._config))
            except ExchangeError as error:
                lease.score(Outcome.FAULT)
                return self._broken(worker, journey, exchange, error.kind)
            except asyncio.CancelledError:
                self._cancelled(journey)
                raise
            finally:
                if exchange is not None:
                    worker.upstream.give_back(exchange)
        return False

    def _pick(self, journey: Journey) -> Worker | None:
        view = journey.reading.view
        workers = self._registry.candidates(view.model, journey.tried)
        if not workers:
            return None
        now = self._clock()
        views = [WorkerView(worker.id, worker.in_flight) for worker in workers]
        decision = self._policy.decide(view, views, self._rng, now)
        self._policy.record(view, decision, now)
        journey.decision = decision
        journey.tried.add(decision.worker)
        return self._registry.workers[decision.worker]

    async def _send(self, worker: Worker, journey: Journey) -> Exchange:
        """Send the request and wait for the head of the response."""
        request = journey.request
        headers = [header for header in end_to_end(request.head) if header[0].lower() not in _NOT_FORWARDED]
        exchange = await worker.upstream.send(request.method, request.target, headers, request.body)
        idle = self._config.idle_timeout
        try:
            exchange.limit(idle if journey.reading.stream else None, journey.deadline)
            await exchange.read_head()
        except BaseException:
            worker.upstream.give_back(exchange)
            raise
        if not journey.reading.stream and not exchange.done:
            exchange.limit(idle, journey.deadline)
        return exchange

    def _may_retry(self, journey: Journey) -> bool:
        """Whether an untried worker is there and the budgets of the request and of the router allow it."""
        if len(journey.tried) > self._config.retries or journey.reply.started:
            return False
        return bool(self._registry.candidates(journey.reading.view.model, journey.tried)) and self._budget.take()

    def _broken(self, worker: Worker, journey: Journey, exchange: Exchange | None, kind: FailureKind) -> bool:
        """Deal with a worker that failed: retry, answer with an error, or end a stream that has begun."""
        reply = journey.reply
        status, reason, code, message = _FAILURES[kind]
        if reply.started:
            tell_break(reply, journey.reading, status, code, "the worker failed in the middle of its answer")
            return False
        if kind != "connect":
            self._abort_orphan(worker, journey.reading)
        if kind in _RETRIED and not (exchange and exchange.got_body) and self._may_retry(journey):
            return True
        headers = journey.receipt(worker=False)
        if status == 503:
            headers.append((b"Retry-After", b"%d" % self._registry.retry_after(journey.reading.view.model)))
        reply.error(status, reason, code, message, family=journey.reading.family, headers=headers)
        return False

    def _cancelled(self, journey: Journey) -> None:
        """The client left, or the router stops before the answer is whole: then it says so."""
        message = "the router is shutting down"
        if journey.reply.started:
            tell_break(journey.reply, journey.reading, 503, "router_shutdown", message)
        elif journey.reply.connected:
            headers = [*journey.receipt(worker=False), (b"Retry-After", b"1")]
            family = journey.reading.family
            journey.reply.error(503, "Service Unavailable", "router_shutdown", message, family=family, headers=headers)

    def _refuse(self, journey: Journey) -> None:
        wait = self._registry.retry_after(journey.reading.view.model)
        headers = [*journey.receipt(worker=False), (b"Retry-After", b"%d" % wait)]
        message = f"no worker is available for this request; try again in {wait} s"
        family = journey.reading.family
        journey.reply.error(503, "Service Unavailable", "no_available_worker", message, family=family, headers=headers)

    def _refuse_model(self, journey: Journey) -> None:
        known = sorted({name for worker in self._registry.workers.values() for name in worker.listed()})
        message = f"model {journey.reading.view.model!r} is not served here; known: {', '.join(known)}"
        family = journey.reading.family
        journey.reply.error(404, "Not Found", "model_not_found", message, family=family)

    def _abort_orphan(self, worker: Worker, reading: Reading) -> None:
        """Tell an abandoned worker to stop generating what nobody will read."""
        for rid in reading.rids[:32]:
            body = json.dumps({"rid": rid}).encode()
            timeout, key = self._config.admin_timeout, self._config.worker_api_key
            call = try_call(worker.upstream, b"POST", b"/abort_request", timeout, body=body, api_key=key)
            task: asyncio.Task[object] = asyncio.create_task(call)
            self._orphans.add(task)
            task.add_done_callback(self._orphans.discard)
