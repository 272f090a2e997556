"""Admission: whoever finds no room waits here, in the order of the fair queue, and is let in as room appears.

A grant takes the room in the same step: whatever ``take`` returns is already counted when the waiting request wakes, so
nobody can slip in between, and a request that is cancelled at that very moment gives it back.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Protocol, TypeVar

from gaugeblock.reference.router.fair_queue import FairQueue, Lane, Ticket
from gaugeblock.reference.router.http1 import Header
from gaugeblock.reference.router.queue_config import QueueConfig
from gaugeblock.reference.router.queue_stats import Pace, QueueStats

RETRIES = 0
"""The band of retries, before all others: they have been let in before, and their number has a budget of its own."""


class Room(Enum):
    """Whether the workers of a lane can take a request: now, once another one has ended, or not at all."""

    FREE = auto()
    FULL = auto()
    NONE = auto()


class Held(Protocol):
    """What a grant takes: leases at one or more workers."""

    def end(self) -> None:
        """Give it back."""


H = TypeVar("H", bound=Held)


class NotLetInError(Exception):
    """A request is not let in. ``kind`` is one of ``REFUSALS``; ``wait`` in seconds until another try makes sense."""

    def __init__(self, kind: str, wait: int = 1) -> None:
        super().__init__(kind)
        self.kind, self.wait = kind, wait


@dataclass(eq=False, slots=True, kw_only=True)
class Waiter(Ticket):
    """A ticket with what is needed to serve it. Times are loop times."""

    visit: Visit
    take: Callable[[], Held]
    granted: asyncio.Future[Any]  # of what take returns
    since: float
    until: float
    waiting: bool = True


@dataclass(eq=False, slots=True)
class _Gate:
    """A lane with waiters: what tells whether there is room, and who waits."""

    look: Callable[[], Room]
    waiters: dict[Waiter, None] = field(default_factory=dict)


class Visit:
    """One client's request from its arrival to the end of its answer, over all of its attempts.

    ``band`` is a number from 0, ``deadline`` a loop time, ``rids`` are the ids by which it can be aborted. Once let in
    it holds one of ``max_concurrent`` until :meth:`close`.
    """

    __slots__ = ("_admission", "admitted", "band", "cost", "deadline", "queued", "rids", "size", "tenant")

    def __init__(
        self,
        admission: Admission,
        band: int,
        tenant: str,
        deadline: float | None,
        size: int,
        rids: Sequence[str] = (),
    ) -> None:
        self._admission = admission
        self.rids = rids
        self.band, self.tenant, self.size = band + 1, tenant, size
        self.cost = admission.cost(size)
        self.deadline = math.inf if deadline is None else deadline
        self.admitted = False
        self.queued: float | None = None  # seconds spent waiting, None if it never had to

    async def enter(self, lane: Lane, look: Callable[[], Room], take: Callable[[], H]) -> H:
        """Wait until there is room in ``lane`` and return what ``take`` then took; the caller ends it.

        ``look`` tells whether ``take`` would succeed, for any request of the lane: it is asked for others too.

        Raises:
            NotLetInError: it is not let in.
        """
        return await self._admission.enter(
            self, (self.admitted, lane), look, take
        )  # max_concurrent stops newcomers only

    def receipt(self) -> list[Header]:
        """Return what the receipt says of the wait; nothing if there was none."""
        return [] if self.queued is None else [(b"x-gaugeblock-queued-ms", b"%d" % (self.queued * 1000))]

    def close(self) -> None:
        """The answer is over."""
        self._admission.leave(self)


class Admission:
    """The queue of one router."""

    def __init__(self, config: QueueConfig) -> None:
        self.running = 0  # visits let in
        self.waiting_bytes = 0
        self.stats = QueueStats(("retry", *config.bands))
        self._config = config
        self._queue = FairQueue(len(config.bands) + 1, config.band_patience, config.tenant_weights, self._dead)
        self._gates: dict[Lane, _Gate] = {}
        self._paces: dict[Lane, Pace] = {}

    def __len__(self) -> int:
        return len(self._queue)

    def depths(self) -> list[int]:
        """Requests waiting by band, retries first."""
        return [band.waiting for band in self._queue.bands]

    def cost(self, size: int) -> float:
        """What a request with a body of ``size`` bytes is charged."""
        return 1.0 if self._config.fair_cost == "requests" else float(max(size, 1))

    # -- a request's side

    async def enter(self, visit: Visit, lane: Lane, look: Callable[[], Room], take: Callable[[], H]) -> H:
        """See :meth:`Visit.enter`."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        if visit.deadline <= now:
            raise self._refusal("deadline_passed")
        if lane not in self._gates:  # nobody to overtake
            room = look()
            if room is Room.NONE:
                raise self._refusal("no_worker")
            if room is Room.FREE and self._may_start(visit):
                return self._let_in(visit, take)
        waiter = self._join(visit, lane, look, take, now)
        granted: asyncio.Future[H] = waiter.granted
        timer = loop.call_at(waiter.until, self._lapse, waiter) if waiter.until < math.inf else None
        try:
            return await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled() and granted.exception() is None:
                granted.result().end()
            raise
        finally:
            if timer is not None:
                timer.cancel()
            self._drop(waiter)
            visit.queued = (visit.queued or 0.0) + loop.time() - waiter.since

    def leave(self, visit: Visit) -> None:
        """A visit is over."""
        if visit.admitted:
            visit.admitted = False
            self.running -= 1
            self.dispatch()

    def abort(self, rid: str) -> None:
        """Refuse a request that waits: its client wants it no more."""
        waiters = [waiter for gate in self._gates.values() for waiter in gate.waiters if rid in waiter.visit.rids]
        for waiter in waiters:
            self._drop(waiter)
            self._fail(waiter, self._refusal("aborted"))

    # -- the workers' side

    def dispatch(self) -> None:
        """Let in whoever may be served now; to be called whenever room may have appeared or a worker has gone."""
        while self._gates:
            lanes = self._open_lanes()
            ticket = self._queue.pop(lanes) if lanes else None
            if ticket is None:
                return
            assert isinstance(ticket, Waiter)
            self._forget(ticket)
            self._grant(ticket)

    def _open_lanes(self) -> list[Lane]:
        """Return the lanes with room, and refuse what waits for workers that are all gone."""
        lanes = []
        for lane, gate in list(self._gates.items()):
            room = gate.look()
            if room is Room.NONE:
                for waiter in list(gate.waiters):
                    self._drop(waiter)
                    self._fail(waiter, self._refusal("no_worker"))
            elif room is Room.FREE and self._may_start(next(iter(gate.waiters)).visit):
                lanes.append(lane)
        return lanes

    def _grant(self, waiter: Waiter) -> None:
        now = asyncio.get_running_loop().time()
        self.stats.waited(waiter.band, now - waiter.since)
        self._pace(waiter.lane).step(now, more=waiter.lane in self._gates)
        try:
            waiter.granted.set_result(self._let_in(waiter.visit, waiter.take))
        except Exception as error:  # it belongs to the request that waits, not to the one whose end made room
            self._fail(waiter, error)

    def _may_start(self, visit: Visit) -> bool:
        most = self._config.max_concurrent
        return visit.admitted or most is None or self.running < most

    def _let_in(self, visit: Visit, take: Callable[[], H]) -> H:
        held = take()
        if not visit.admitted:
            visit.admitted = True
            self.running += 1
        return held

    # -- waiting

    def _join(self, visit: Visit, lane: Lane, look: Callable[[], Room], take: Callable[[], H], now: float) -> Waiter:
        config = self._config
        if not visit.admitted:
            self._check_bounds(visit, lane, now)
        band, cost = (RETRIES, 0.0) if visit.admitted else (visit.band, visit.cost)
        waiter = Waiter(
            band,
            visit.tenant,
            lane,
            cost,
            visit.size,
            visit=visit,
            take=take,
            granted=asyncio.get_running_loop().create_future(),
            since=now,
            until=min(visit.deadline, now + (config.queue_timeout or math.inf)),
        )
        self._queue.push(waiter)
        self.waiting_bytes += visit.size
        self._gates.setdefault(lane, _Gate(look)).waiters[waiter] = None
        self._pace(lane).begin(now)
        return waiter

    def _check_bounds(self, visit: Visit, lane: Lane, now: float) -> None:
        """Refuse whom there is no place for, and whose turn would come too late."""
        config = self._config
        if len(self) >= config.queue_size or self.waiting_bytes + visit.size > config.queue_bytes:
            raise self._refusal("queue_full", self._drained_in(lane))
        pace, left = self._pace(lane), visit.deadline - now
        if (
            pace.until_turn(len(self)) > left and pace.until_turn(self._ahead(lane, visit)) > left
        ):  # counted only if close
            raise self._refusal("deadline_unreachable", self._drained_in(lane))

    def _ahead(self, lane: Lane, visit: Visit) -> int:
        """Return how many of a lane are served before a newcomer whatever comes: its tenant's, and more urgent ones."""
        gate = self._gates.get(lane)
        if gate is None:
            return 0
        own = sum(waiter.band == visit.band and waiter.tenant == visit.tenant for waiter in gate.waiters)
        urgent = sum(waiter.band < visit.band for waiter in gate.waiters)
        return own + min(urgent, self._config.band_patience * (own + 1))

    def _pace(self, lane: Lane) -> Pace:
        pace = self._paces.get(lane)
        if pace is None:
            if len(self._paces) >= 256:
                self._paces.clear()
            pace = self._paces[lane] = Pace()
        return pace

    def _drained_in(self, lane: Lane) -> int:
        """Return whole seconds, 1 to 60, after which the queue of a lane should have moved on."""
        gate, pace = self._gates.get(lane), self._paces.get(lane)
        if gate is None or pace is None:
            return 1
        return max(1, min(60, round(pace.until_turn(len(gate.waiters)))))

    def _dead(self, ticket: Ticket) -> bool:
        """Whether a ticket must not be served: its client has left, or its time is over by now."""
        assert isinstance(ticket, Waiter)
        if ticket.granted.done():
            self._drop(ticket)
        elif ticket.until <= asyncio.get_running_loop().time():
            self._lapse(ticket)
        return not ticket.waiting

    def _lapse(self, waiter: Waiter) -> None:
        if waiter.waiting:
            self._drop(waiter)
            over = waiter.visit.deadline <= waiter.until
            kind = "deadline_passed" if over else "queue_timeout"
            self._fail(waiter, self._refusal(kind, self._drained_in(waiter.lane)))

    def _drop(self, waiter: Waiter) -> None:
        if waiter.waiting:
            self._queue.remove(waiter)
            self._forget(waiter)
            if waiter.lane not in self._gates:
                self._pace(waiter.lane).pause()

    def _forget(self, waiter: Waiter) -> None:
        """Strike a waiter that is no longer in the queue off the lists."""
        waiter.waiting = False
        self.waiting_bytes -= waiter.size
        gate = self._gates[waiter.lane]
        del gate.waiters[waiter]
        if not gate.waiters:
            del self._gates[waiter.lane]

    def _fail(self, waiter: Waiter, error: Exception) -> None:
        if not waiter.granted.done():
            waiter.granted.set_exception(error)

    def _refusal(self, kind: str, wait: int = 1) -> NotLetInError:
        self.stats.refused(kind)
        return NotLetInError(kind, wait)
