"""Shadows: copies of requests for a pool that is being tried out. What it answers is dropped."""

from __future__ import annotations

import asyncio
from random import Random

from gaugeblock.reference.router.breaker import Outcome
from gaugeblock.reference.router.config import RouterConfig
from gaugeblock.reference.router.exchange import Exchange
from gaugeblock.reference.router.http1 import request_headers
from gaugeblock.reference.router.journey import Journey
from gaugeblock.reference.router.registry import Registry
from gaugeblock.reference.router.relay import judge
from gaugeblock.reference.router.watch import ExchangeError
from gaugeblock.reference.router.worker import Lease, Worker


class Shadows:
    """Sends copies in the background, at most ``shadow_max_in_flight`` at a time; the rest is not sent.

    A copy is load and a success or a fault of its worker like any other attempt, but nothing of it touches the client,
    the retry budget or what policies learn. ``counts`` by what became of them.
    """

    def __init__(self, config: RouterConfig, registry: Registry, rng: Random) -> None:
        self._config, self._registry, self._rng = config, registry, rng
        self._running: set[asyncio.Task[None]] = set()
        self.counts = dict.fromkeys(("sent", "failed", "left_out"), 0)

    def send(self, journey: Journey) -> None:
        """Send a copy to the idlest worker of the shadow's pool, or leave it out if none may take it."""
        workers = self._registry.candidates(journey.reading.view.model, pool=journey.route.shadow)
        if not workers or len(self._running) >= self._config.shadow_max_in_flight:
            self.counts["left_out"] += 1
            return
        worker = min(workers, key=lambda worker: (worker.in_flight, self._rng.random()))
        lease = Lease(worker).begin()  # at once: the next copy must not find the same room
        task = asyncio.get_running_loop().create_task(self._copy(worker, lease, journey))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        task.add_done_callback(lambda _: lease.end())  # also where it is cancelled before its first step

    def cancel(self) -> None:
        """End all copies at once."""
        for task in list(self._running):
            task.cancel()

    async def _copy(self, worker: Worker, lease: Lease, journey: Journey) -> None:
        request, exchange = journey.request, None
        with lease:
            try:
                headers = request_headers(request.head)
                exchange = await worker.upstream.send(request.method, request.target, headers, request.body)
                lease.score(await self._read(exchange, journey))
                self.counts["sent"] += 1
            except ExchangeError:
                lease.score(Outcome.FAULT)
                self.counts["failed"] += 1
            finally:
                if exchange is not None:
                    worker.upstream.give_back(exchange)

    async def _read(self, exchange: Exchange, journey: Journey) -> Outcome:
        exchange.limit(self._config.idle_timeout, journey.deadline)
        await exchange.read_head()
        while await exchange.read_body():
            pass
        return judge(exchange.status)
