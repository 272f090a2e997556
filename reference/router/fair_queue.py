"""The waiting requests in the order in which they are served: by band, then fairly by tenant. No clock, no HTTP.

Between bands the order is strict with a bound: a band that was passed over ``patience`` times in a row while it could
have been served goes first. Counting turns instead of seconds keeps that a trickle: under overload every low request is
old, and a bound in seconds would turn the queue into one long line in order of arrival, the priorities lost just when
they matter (https://github.com/kubernetes-sigs/gateway-api-inference-extension/issues/1861).

Inside a band it is start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996): each tenant has a tag, the lowest tag
is served, and its tag grows by what the request costs over the tenant's weight. That is charged when a request is
served, as with virtual token counters (https://arxiv.org/abs/2401.00588): one that leaves the queue costs nothing.
"""

from __future__ import annotations

import heapq
import itertools
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

Lane = Hashable
"""Requests of one lane can be served by the same workers, so a lane either moves or is blocked as a whole."""
_IDLE_TENANTS = 1024  # kept at most beside twice those that wait: a client must not grow the table with made-up names


@dataclass(eq=False, slots=True)
class Ticket:
    """One waiting request. ``band`` 0 is the most urgent; ``cost`` is what its tenant is charged; ``size`` in bytes."""

    band: int
    tenant: str
    lane: Lane
    cost: float = 1.0
    size: int = 0


class _Spot(NamedTuple):
    """The next ticket of a band. Spots of one band compare by tag, then by age."""

    tag: float
    number: int
    ticket: Ticket


class _Tenant:
    """A tenant's tag, and its tickets by lane. A lane is listed as long as the lane's heap names the tenant."""

    __slots__ = ("lines", "tag")

    def __init__(self, tag: float) -> None:
        self.tag = tag
        self.lines: dict[Lane, OrderedDict[Ticket, None]] = {}


class Band:
    """The tickets of one priority. ``dead`` tells tickets that must not be served any more; they are dropped."""

    def __init__(self, weights: Mapping[str, float], dead: Callable[[Ticket], bool]) -> None:
        self.waiting = 0
        self.passed = 0  # turns in a row that went to other bands while this one could have been served
        self._weights, self._dead = weights, dead
        self._tenants: dict[str, _Tenant] = {}
        self._heaps: dict[Lane, list[tuple[float, int, str]]] = {}  # tags are lower bounds, renewed when they come up
        self._numbers = itertools.count()
        self._virtual = 0.0  # the tag of what was served last

    def push(self, ticket: Ticket) -> None:
        """Add a ticket behind its tenant's others of the lane."""
        tenant = self._tenants.get(ticket.tenant)
        if tenant is None:
            self._forget_idle()
            tenant = self._tenants[ticket.tenant] = _Tenant(self._virtual)
        elif not any(tenant.lines.values()):
            tenant.tag = max(tenant.tag, self._virtual)  # a pause earns no credit
        line = tenant.lines.get(ticket.lane)
        if line is None:
            line = tenant.lines[ticket.lane] = OrderedDict()
            entry = (tenant.tag, next(self._numbers), ticket.tenant)
            heapq.heappush(self._heaps.setdefault(ticket.lane, []), entry)
        line[ticket] = None
        self.waiting += 1

    def remove(self, ticket: Ticket) -> None:
        """Take out a ticket that will not be served."""
        del self._tenants[ticket.tenant].lines[ticket.lane][ticket]
        self._gone()

    def peek(self, lanes: Iterable[Lane]) -> _Spot | None:
        """Return the next ticket of ``lanes``, None if there is none."""
        spots = [spot for lane in lanes if (spot := self._peek(lane)) is not None]
        return min(spots, default=None)

    def serve(self, spot: _Spot) -> None:
        """Take out the ticket that :meth:`peek` returned, and charge its tenant."""
        ticket = spot.ticket
        tenant = self._tenants[ticket.tenant]
        self._virtual = tenant.tag
        tenant.tag += ticket.cost / self._weights.get(ticket.tenant, 1.0)
        del tenant.lines[ticket.lane][ticket]
        self._gone()

    def _peek(self, lane: Lane) -> _Spot | None:
        heap = self._heaps.get(lane)
        while heap:
            tag, number, name = heap[0]
            tenant = self._tenants[name]
            ticket = self._first(tenant.lines[lane])
            if ticket is None:
                heapq.heappop(heap)
                tenant.lines.pop(lane, None)
            elif tag < tenant.tag:
                heapq.heapreplace(heap, (tenant.tag, next(self._numbers), name))
            else:
                return _Spot(tag, number, ticket)
        self._heaps.pop(lane, None)
        return None

    def _first(self, line: OrderedDict[Ticket, None]) -> Ticket | None:
        while line:
            ticket = next(iter(line))
            if not self._dead(ticket):
                return ticket
            if ticket in line:  # whoever told that it is dead may have removed it already
                del line[ticket]
                self._gone()
        return None

    def _gone(self) -> None:
        self.waiting -= 1
        if not self.waiting:
            self.passed = 0

    def _forget_idle(self) -> None:
        """Bound what is remembered: a tenant without tickets loses its tag, and its places in the heaps."""
        if len(self._tenants) < 2 * self.waiting + _IDLE_TENANTS:
            return
        self._tenants = {name: tenant for name, tenant in self._tenants.items() if any(tenant.lines.values())}
        for tenant in self._tenants.values():
            tenant.lines = {lane: line for lane, line in tenant.lines.items() if line}
        for lane, heap in list(self._heaps.items()):
            kept = [entry for entry in heap if entry[2] in self._tenants and lane in self._tenants[entry[2]].lines]
            heapq.heapify(kept)
            self._heaps[lane] = kept


class FairQueue:
    """``bands`` bands; ``weights`` by tenant, 1 for all others. See the module for the order.

    A ticket that is next in its band is passed over by other bands at most ``patience + bands - 2`` times in a row.
    """

    def __init__(
        self,
        bands: int,
        patience: int,
        weights: Mapping[str, float] | None = None,
        dead: Callable[[Ticket], bool] = lambda ticket: False,
    ) -> None:
        self.bands = [Band(weights or {}, dead) for _ in range(bands)]
        self._patience = patience

    def __len__(self) -> int:
        return sum(band.waiting for band in self.bands)

    def push(self, ticket: Ticket) -> None:
        """Add a ticket."""
        self.bands[ticket.band].push(ticket)

    def remove(self, ticket: Ticket) -> None:
        """Take out a ticket that will not be served."""
        self.bands[ticket.band].remove(ticket)

    def pop(self, lanes: Collection[Lane]) -> Ticket | None:
        """Serve the next ticket of ``lanes``, those that are not blocked; None if no ticket waits there."""
        ready = [(band, spot) for band in self.bands if band.waiting and (spot := band.peek(lanes)) is not None]
        if not ready:
            return None
        late = max(ready, key=lambda entry: entry[0].passed)  # of equals the more urgent one
        band, spot = late if late[0].passed >= self._patience else ready[0]
        for other, _ in ready:
            other.passed += 1
        band.passed = 0
        band.serve(spot)
        return spot.ticket
