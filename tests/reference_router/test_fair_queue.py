"""The queue against an oracle that scans a plain list, and the bounds that its docstring promises."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gaugeblock.reference.router.fair_queue import FairQueue, Ticket

LANES = ("a", "b")
TENANTS = ("x", "y", "z")


class Oracle:
    """The same order by definition: no heaps, every question answered by a scan of all tickets."""

    def __init__(self, bands: int, patience: int, weights: dict[str, float]) -> None:
        self.weights, self.patience = weights, patience
        self.waiting: list[Ticket] = []
        self.passed = [0] * bands
        self.tags: list[dict[str, float]] = [{} for _ in range(bands)]
        self.virtual = [0.0] * bands

    def push(self, ticket: Ticket) -> None:
        tags, virtual = self.tags[ticket.band], self.virtual[ticket.band]
        if not any(t.tenant == ticket.tenant and t.band == ticket.band for t in self.waiting):
            tags[ticket.tenant] = max(tags.get(ticket.tenant, virtual), virtual)
        self.waiting.append(ticket)

    def remove(self, ticket: Ticket) -> None:
        self.waiting.remove(ticket)
        self._settle()

    def legal(self, lanes: Sequence[str]) -> tuple[int, list[Ticket]]:
        """The band whose turn it is, and its tickets that may be next: the oldest of each tenant with the least tag."""
        ready = [b for b in range(len(self.passed)) if any(t.band == b and t.lane in lanes for t in self.waiting)]
        if not ready:
            return -1, []
        late = max(ready, key=lambda band: (self.passed[band], -band))
        band = late if self.passed[late] >= self.patience else ready[0]
        firsts: dict[tuple[str, object], Ticket] = {}
        for ticket in self.waiting:
            if ticket.band == band and ticket.lane in lanes:
                firsts.setdefault((ticket.tenant, ticket.lane), ticket)
        low = min(self.tags[band][ticket.tenant] for ticket in firsts.values())
        return band, [ticket for ticket in firsts.values() if self.tags[band][ticket.tenant] == low]

    def serve(self, ticket: Ticket, lanes: Sequence[str]) -> None:
        for band in {t.band for t in self.waiting if t.lane in lanes}:
            self.passed[band] += 1
        self.passed[ticket.band] = 0
        tags = self.tags[ticket.band]
        self.virtual[ticket.band] = tags[ticket.tenant]
        tags[ticket.tenant] += ticket.cost / self.weights.get(ticket.tenant, 1.0)
        self.waiting.remove(ticket)
        self._settle()

    def _settle(self) -> None:
        for band in range(len(self.passed)):
            if not any(ticket.band == band for ticket in self.waiting):
                self.passed[band] = 0


def ticket(band: int = 0, tenant: str = "x", lane: str = "a", cost: float = 1.0) -> Ticket:
    return Ticket(band, tenant, lane, cost)


tickets = st.builds(
    ticket, st.integers(0, 2), st.sampled_from(TENANTS), st.sampled_from(LANES), st.sampled_from((0.5, 1.0, 3.0))
)
steps = st.lists(
    st.one_of(tickets, st.integers(0, 99), st.sets(st.sampled_from(LANES), min_size=1).map(sorted)), max_size=80
)


@settings(max_examples=300, deadline=None)
@given(steps=steps, patience=st.integers(2, 5), weight=st.sampled_from((1.0, 2.0)))
def test_it_serves_what_the_oracle_would(steps: list[object], patience: int, weight: float) -> None:
    """A ticket is pushed, an int removes one, a list of lanes serves; every served ticket must be legal."""
    weights = {"x": weight}
    queue, oracle = FairQueue(3, patience, weights), Oracle(3, patience, weights)
    pushed: list[Ticket] = []
    ended: list[Ticket] = []
    for step in [*steps, *[list(LANES)] * 81]:
        if isinstance(step, Ticket):
            queue.push(step)
            oracle.push(step)
            pushed.append(step)
        elif isinstance(step, int) and oracle.waiting:
            gone = oracle.waiting[step % len(oracle.waiting)]
            queue.remove(gone)
            oracle.remove(gone)
            ended.append(gone)
        elif isinstance(step, list):
            band, legal = oracle.legal(step)
            served = queue.pop(step)
            assert (served is None) == (not legal)
            if served is not None:
                assert served.band == band
                assert served in legal
                oracle.serve(served, step)
                ended.append(served)
        assert len(queue) == len(oracle.waiting)
        assert [band.waiting for band in queue.bands] == [
            sum(t.band == band for t in oracle.waiting) for band in range(3)
        ]
    assert Counter(map(id, ended)) == Counter(map(id, pushed)), "a ticket was lost or served twice"


@settings(max_examples=100, deadline=None)
@given(order=st.lists(tickets, max_size=60))
def test_order_inside_tenant_band_and_lane_is_that_of_arrival(order: list[Ticket]) -> None:
    queue = FairQueue(3, 4)
    for one in order:
        queue.push(one)
    served = [one for _ in order if (one := queue.pop(LANES)) is not None]
    for key in {(t.tenant, t.band, t.lane) for t in order}:
        mine = [t for t in order if (t.tenant, t.band, t.lane) == key]
        assert [t for t in served if (t.tenant, t.band, t.lane) == key] == mine


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32), patience=st.integers(2, 8))
def test_a_band_is_passed_over_a_bounded_number_of_times(seed: int, patience: int) -> None:
    """Three bands that always have something to do: the worst case of the bound."""
    rng = random.Random(seed)
    queue = FairQueue(3, patience)
    row = [0, 0, 0]
    for _ in range(200):
        for band in queue.bands:
            while band.waiting < 2:
                queue.push(ticket(queue.bands.index(band), rng.choice(TENANTS)))
        served = queue.pop(LANES)
        assert served is not None
        row = [0 if band == served.band else count + 1 for band, count in enumerate(row)]
        assert max(row) <= patience + 3 - 2, row


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32), costs=st.tuples(*[st.sampled_from((1.0, 2.0, 5.0))] * 3))
def test_tenants_with_work_get_equal_shares(seed: int, costs: tuple[float, float, float]) -> None:
    """Service of two backlogged tenants differs by less than the largest costs of both (Goyal et al., theorem 1)."""
    rng = random.Random(seed)
    queue = FairQueue(1, 4)
    left: Counter[str] = Counter()
    service = dict.fromkeys(TENANTS, 0.0)
    cost = dict(zip(TENANTS, costs, strict=True))
    for _ in range(150):
        for tenant in TENANTS:
            while left[tenant] < rng.randint(1, 4):
                queue.push(ticket(tenant=tenant, cost=cost[tenant]))
                left[tenant] += 1
        served = queue.pop(LANES)
        assert served is not None
        left[served.tenant] -= 1
        service[served.tenant] += served.cost
        for one in TENANTS:
            for other in TENANTS:
                assert abs(service[one] - service[other]) <= cost[one] + cost[other]


def test_weights_are_shares() -> None:
    queue = FairQueue(1, 4, {"x": 3.0})
    for _ in range(40):
        queue.push(ticket(tenant="x"))
        queue.push(ticket(tenant="y"))
    served = Counter(one.tenant for _ in range(40) if (one := queue.pop(LANES)))
    assert served == {"x": 30, "y": 10}


def test_a_tenant_that_pauses_saves_up_nothing() -> None:
    queue = FairQueue(1, 4)
    for _ in range(50):
        queue.push(ticket(tenant="x"))
    for _ in range(30):
        queue.pop(LANES)
    for _ in range(10):
        queue.push(ticket(tenant="y"))
    assert Counter(one.tenant for _ in range(10) if (one := queue.pop(LANES))) == {"x": 5, "y": 5}


def test_a_blocked_lane_holds_up_no_other_and_is_not_passed_over() -> None:
    queue = FairQueue(2, 3)
    low = ticket(1, lane="b")
    queue.push(low)
    for _ in range(9):
        queue.push(ticket(0, lane="a"))
        assert queue.pop(["a"]) is not None
    first = ticket(0, lane="b")
    queue.push(first)
    assert queue.pop(["b"]) is first, "turns in which a band was blocked must not count as passing it over"
    assert queue.pop(["a"]) is None
    assert queue.pop(["b"]) is low


def test_dead_tickets_are_dropped_and_cost_their_tenant_nothing() -> None:
    dead: set[Ticket] = set()
    queue = FairQueue(1, 4, dead=dead.__contains__)
    mine = [ticket(tenant="x") for _ in range(5)]
    for one in mine:
        queue.push(one)
    dead.update(mine[:3])
    other = ticket(tenant="y")
    queue.push(other)
    assert [queue.pop(LANES) for _ in range(4)] == [mine[3], other, mine[4], None]
    assert len(queue) == 0


@pytest.mark.parametrize("leave", ["served", "removed"])
def test_made_up_tenants_do_not_stay_in_memory(leave: str) -> None:
    queue = FairQueue(1, 4)
    queue.push(ticket(tenant="stays", lane="blocked"))
    for number in range(20_000):
        one = ticket(tenant=f"t{number}")
        queue.push(one)
        if leave == "removed":
            queue.remove(one)
        else:
            assert queue.pop(["a"]) is one
    band = queue.bands[0]
    assert len(band._tenants) <= 1100
    assert sum(map(len, band._heaps.values())) <= 1100
    assert queue.pop(["blocked"]) is not None
