"""The way of a request through the queue: read what it asks, wait for room, answer if it is not let in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gaugeblock.reference.router import refusals
from gaugeblock.reference.router.admission import Admission, H, NotLetInError, Room, Visit
from gaugeblock.reference.router.config import RouterConfig
from gaugeblock.reference.router.demand import Demands
from gaugeblock.reference.router.fair_queue import Lane
from gaugeblock.reference.router.journey import Journey
from gaugeblock.reference.router.registry import Registry


class Entry:
    """Where requests enter when something is limited."""

    def __init__(self, config: RouterConfig, registry: Registry) -> None:
        self.admission = Admission(config)
        self._registry = registry
        self._demands = Demands(config)
        registry.on_change = self.admission.dispatch

    def open(self, journey: Journey) -> bool:
        """Give the request its visit and its deadline; False if it was refused."""
        try:
            demand = self._demands.read(journey.route, journey.request.head.fields)
        except ValueError as error:
            refusals.bad_demand(journey, str(error))
            return False
        self.admission.stats.unknown_bands += demand.unknown_band
        if demand.timeout is not None:
            until = asyncio.get_running_loop().time() + demand.timeout
            journey.deadline = until if journey.deadline is None else min(journey.deadline, until)
        size = len(journey.request.body)
        journey.visit = Visit(self.admission, demand.band, demand.tenant, journey.deadline, size, journey.reading.rids)
        return True

    async def wait(self, journey: Journey, lane: Lane, look: Callable[[], Room], take: Callable[[], H]) -> H | None:
        """Wait until there is room and return what ``take`` took; None if the request was refused, and told so.

        ``look`` tells whether ``take`` would succeed, for any request of ``lane``: it is asked for others too.
        """
        assert journey.visit is not None
        try:
            return await journey.visit.enter(lane, look, take)
        except NotLetInError as refusal:
            if refusal.kind == "no_worker":
                refusals.no_worker(journey, self._registry.retry_after(journey.reading.view.model, journey.route.pool))
            else:
                refusals.not_let_in(journey, refusal)
        except asyncio.CancelledError:
            refusals.shutting_down(journey)
            raise
        return None
