"""Forwarding: pick a worker, pass the bytes both ways, retry only while the client has got nothing."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from random import Random

from gaugeblock.reference.router import refusals
from gaugeblock.reference.router.admission import NotLetInError, Room
from gaugeblock.reference.router.breaker import Outcome
from gaugeblock.reference.router.cache_reports import TAIL, CacheReports
from gaugeblock.reference.router.config import RouterConfig
from gaugeblock.reference.router.demand import tenant_name
from gaugeblock.reference.router.entry import Entry
from gaugeblock.reference.router.exchange import Exchange
from gaugeblock.reference.router.fair_queue import Lane
from gaugeblock.reference.router.front import Request
from gaugeblock.reference.router.hot import HotPrefixes
from gaugeblock.reference.router.http1 import request_headers
from gaugeblock.reference.router.journey import Journey
from gaugeblock.reference.router.orphans import Orphans
from gaugeblock.reference.router.pairs import Pairs
from gaugeblock.reference.router.pd import ALONE, PAIRED, Disaggregation
from gaugeblock.reference.router.policies.base import WorkerView
from gaugeblock.reference.router.policy_set import PolicySet
from gaugeblock.reference.router.registry import Registry
from gaugeblock.reference.router.relay import relay
from gaugeblock.reference.router.reply import Reply
from gaugeblock.reference.router.retry import RETRIED_KINDS, RETRY_STATUS, RetryBudget
from gaugeblock.reference.router.rulebook import RuleBook
from gaugeblock.reference.router.rules import DEFAULT_ROUTE, Route
from gaugeblock.reference.router.service import Service
from gaugeblock.reference.router.shadow import Shadows
from gaugeblock.reference.router.view import read
from gaugeblock.reference.router.watch import ExchangeError, FailureKind
from gaugeblock.reference.router.worker import Lease, Worker


class Proxy:
    """Forwards requests. ``clock`` is the policies' clock in seconds, ``rng`` their dice."""

    def __init__(
        self,
        config: RouterConfig,
        registry: Registry,
        policies: PolicySet,
        book: RuleBook,
        rng: Random,
        clock: Callable[[], float],
    ) -> None:
        self._config, self._registry, self._policies, self._book = config, registry, policies, book
        self._tenant_header = config.tenant_header.lower().encode()
        self.shadows = Shadows(config, registry, rng)
        self._rng, self._clock = rng, clock
        self._budget = RetryBudget(config.retry_ratio, config.retry_burst)
        self._session_headers = [name.lower().encode() for name in config.session_headers]
        self._orphans = Orphans(config)
        self.cache = CacheReports(config.cache_loss_window, config.max_prefix_bytes, policies.forget)
        self.entry = Entry(config, registry)
        self._service = Service(config, registry)
        pairs = Pairs(registry, policies, rng, clock)
        self._pairs = Disaggregation(config, registry, pairs, self.entry, self._budget, self._orphans)
        self.hot: HotPrefixes | None = None  # where prompts are counted for warming workers up
        self.retries = 0
        self.routed: Counter[tuple[str, str, str]] = Counter()  # requests by rule, variant and pool, if there are rules

    async def forward(self, request: Request, reply: Reply) -> None:
        """Serve one request from its routing view to the last byte of its answer."""
        journey = self._set_out(request, reply)
        if journey is None:
            return
        self._budget.refill()
        if self._registry.limited and not self.entry.open(journey):
            return
        attempt = self._choose_way(journey) if self._registry.paired else self._attempt
        try:
            while attempt is not None and await attempt(journey):
                self.retries += 1
        finally:
            if journey.visit is not None:
                journey.visit.close()
            if self._book.rules is not None and journey.spec is not None:
                route = journey.route
                self.routed[route.rule or "", route.variant or "", journey.spec.pool] += 1

    def _set_out(self, request: Request, reply: Reply) -> Journey | None:
        """Read a request and decide where it may go; None if it has been refused."""
        rules, policies, paired = self._book.rules, self._policies, self._registry.paired
        max_prompt = self._config.max_prefix_bytes if policies.reads_prompt or self.hot is not None else 0
        measure = rules is not None and rules.measures
        fields = request.head.fields
        reading = read(request.path, fields, request.body, self._session_headers, max_prompt, paired, measure)
        if self.hot is not None:
            self.hot.note(request.path, reading.view)
        if rules is not None:
            route = rules.route(request, reading, self._tenant(request))
        else:
            route = DEFAULT_ROUTE if request.tenant is None else Route(tenant=request.tenant)
        limits = [limit for limit in (self._config.total_timeout, route.deadline) if limit is not None]
        deadline = asyncio.get_running_loop().time() + min(limits) if limits else None
        journey = Journey(request, reply, reading, deadline, route, tiered=self._registry.tiered)
        if not self._service.admit(journey):
            return None
        plain = journey.route.otherwise or journey.route
        if not self._registry.knows(reading.view.model, plain.pool):
            refusals.unknown_model(journey, self._registry.listed(plain.pool))
            return None
        if journey.route.shadow is not None and request.method == b"POST":
            self.shadows.send(journey)
        return journey

    def _tenant(self, request: Request) -> str | None:
        if request.tenant is not None:
            return request.tenant
        return tenant_name(request.head.fields.get(self._tenant_header, b"")) or None

    def note_abort(self, rid: str) -> None:
        """Note that a client has aborted a request: no other worker shall get it."""
        self._orphans.remember(rid)
        self.entry.admission.abort(rid)

    def _choose_way(self, journey: Journey) -> Callable[[Journey], Awaitable[bool]] | None:
        """Return how a request is served where there are pairs: by a regular worker if one may take it, else by them.

        None if it was refused.
        """
        request, otherwise = journey.request, journey.route.otherwise
        if otherwise is not None and not self._candidates(journey) and not self._pairs.able(journey):
            journey.route = otherwise
        if self._candidates(journey) or not self._registry.pairs_serve(journey.reading.view.model, journey.route.pool):
            return self._attempt
        if request.path in PAIRED:
            return self._pairs.attempt
        if request.method != b"POST" or request.path in ALONE:
            journey.role = "prefill" if self._pairs.able(journey) else "regular"
            return self._attempt
        refusals.not_for_pairs(journey, sorted(PAIRED | ALONE))
        return None

    async def _attempt(self, journey: Journey) -> bool:
        """Try one worker; returns whether another one should be tried."""
        lease = await self._lease(journey)
        if lease is None:
            return False
        worker = lease.worker
        exchange: Exchange | None = None
        with lease:
            try:
                exchange = await self._send(worker, journey)
                if exchange.status in RETRY_STATUS and self._may_retry(journey):
                    lease.score(Outcome.FAULT)
                    self._orphans.abort(worker, journey.reading.rids)
                    return True
                lease.score(await relay(exchange, journey.reply, journey.receipt(), journey.reading, self._config))
                if self._policies.reads_prompt and journey.decision is not None and exchange.status == 200:
                    self.cache.learn(journey.reading.view, journey.decision, exchange.tail(TAIL))
            except ExchangeError as error:
                if not self._orphans.unwanted(journey.reading.rids):
                    lease.broke(error.kind)
                return self._broken(worker, journey, exchange, error.kind)
            except asyncio.CancelledError:
                refusals.shutting_down(journey)
                raise
            finally:
                if exchange is not None:
                    lease.heard(exchange.status, exchange.first_byte)
                    worker.upstream.give_back(exchange)
        return False

    async def _lease(self, journey: Journey) -> Lease | None:
        """Return the lease of the worker that the request goes to now; None if it was refused, and told so."""
        otherwise = journey.route.otherwise
        if otherwise is not None and self._room(journey, journey.route) is not Room.FREE:
            journey.route = otherwise  # nobody waits for an experiment
        if journey.visit is not None:
            return await self.entry.wait(journey, *self._lane(journey), lambda: self._take(journey))
        worker = self._pick(journey)
        if worker is not None:
            return Lease(worker)
        refusals.no_worker(journey, self._wait(journey))
        return None

    def _lane(self, journey: Journey) -> tuple[Lane, Callable[[], Room]]:
        """Return what names the workers that may take the request, and what tells whether there is room at them."""
        model, route, tried = self._registry.kin(journey.reading.view.model), journey.route, frozenset(journey.tried)
        role = journey.role
        return (model, role, route.pool, route.order, route.floor, tried), lambda: self._registry.room(
            model, tried, role=role, pool=route.pool, tiers=route.order, floor=route.floor
        )

    def _room(self, journey: Journey, route: Route) -> Room:
        """Return whether a worker that has not seen the request may take it on this route."""
        model = journey.reading.view.model
        return self._registry.room(
            model, journey.tried, role=journey.role, pool=route.pool, tiers=route.order, floor=route.floor
        )

    def _take(self, journey: Journey) -> Lease:
        worker = self._pick(journey)
        if worker is None:  # what its worker serves has changed since the request began to wait
            raise NotLetInError("no_worker")
        return Lease(worker).begin()

    def _pick(self, journey: Journey) -> Worker | None:
        view = journey.reading.view
        workers = self._candidates(journey)
        if not workers:
            return None
        now = self._clock()
        views = [WorkerView(worker.id, worker.in_flight, worker.spec.weight) for worker in workers]
        policy = self._policies.get(journey.route.policy)
        decision = policy.decide(view, views, self._rng, now)
        policy.record(view, decision, now)
        worker = self._registry.workers[decision.worker]
        journey.settle(decision, worker.spec)
        journey.tried.add(decision.worker)
        journey.attempts += 1
        return worker

    async def _send(self, worker: Worker, journey: Journey) -> Exchange:
        """Send the request and wait for the head of the response."""
        request = journey.request
        headers = request_headers(request.head)
        idle = self._config.idle_timeout
        exchange: Exchange | None = None
        while exchange is None:
            exchange = await worker.upstream.send(request.method, request.target, headers, request.body)
            try:
                exchange.limit(idle if journey.reading.stream else None, journey.deadline)
                await exchange.read_head()
            except BaseException as error:
                worker.upstream.give_back(exchange)
                if not isinstance(error, ExchangeError) or not exchange.stale:
                    raise
                if self._orphans.unwanted(journey.reading.rids):
                    raise
                exchange = None  # the next kept connection, or in the end a new one
        if not journey.reading.stream and not exchange.done:
            exchange.limit(idle, journey.deadline)
        return exchange

    def _may_retry(self, journey: Journey) -> bool:
        """Whether an untried worker is there and the budgets of the request and of the router allow it."""
        if journey.attempts - journey.refused > self._config.retries or journey.reply.started:
            return False
        if self._orphans.unwanted(journey.reading.rids):
            return False
        routes = [route for route in (journey.route, journey.route.otherwise) if route is not None]
        return any(self._room(journey, route) is not Room.NONE for route in routes) and self._budget.take()

    def _broken(self, worker: Worker, journey: Journey, exchange: Exchange | None, kind: FailureKind) -> bool:
        """Deal with a worker that failed: retry, answer with an error, or end a stream that has begun."""
        if journey.reply.started:
            refusals.broke_off(journey, kind)
            return False
        if kind == "connect":
            journey.refused += 1
        else:
            self._orphans.abort(worker, journey.reading.rids)
        if kind in RETRIED_KINDS and not (exchange and exchange.got_body) and self._may_retry(journey):
            return True
        refusals.failed(journey, kind, self._wait(journey))
        return False

    def _wait(self, journey: Journey) -> int:
        return self._registry.retry_after(journey.reading.view.model, journey.route.pool)

    def _candidates(self, journey: Journey) -> list[Worker]:
        """Return the workers that may take the request now and have not seen it yet."""
        model, route = journey.reading.view.model, journey.route
        return self._registry.candidates(
            model, journey.tried, role=journey.role, pool=route.pool, tiers=route.order, floor=route.floor
        )
