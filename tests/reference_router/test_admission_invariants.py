"""Admission under any order of arrivals, ends, departures, expiries and workers that come and go."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from gaugeblock.reference.router.admission import Admission, NotLetInError, Room, Visit
from gaugeblock.reference.router.config import RouterConfig

CAPS = {"w0": 1, "w1": 2, "w2": 1}
LANES = {"all": ("w0", "w1", "w2"), "first": ("w0",), "rest": ("w1", "w2")}
MOST, QUEUE = 3, 6


@dataclass
class Fleet:
    """Workers as counters, and the requests that each has."""

    up: set[str] = field(default_factory=lambda: set(CAPS))
    busy: dict[str, int] = field(default_factory=lambda: dict.fromkeys(CAPS, 0))

    def look(self, lane: str) -> Room:
        up = [worker for worker in LANES[lane] if worker in self.up]
        free = any(self.busy[worker] < CAPS[worker] for worker in up)
        return Room.FREE if free else Room.FULL if up else Room.NONE


@dataclass
class Place:
    """What a grant holds."""

    fleet: Fleet
    admission: Admission
    worker: str
    held: bool = True

    def end(self) -> None:
        assert self.held, "a place was given back twice"
        self.held = False
        self.fleet.busy[self.worker] -= 1
        self.admission.dispatch()


class Client:
    """One request: asks to be let in, twice if ``again`` (a retry), and stays until it is told to go."""

    def __init__(self, fleet: Fleet, admission: Admission, lane: str, band: int, again: bool) -> None:
        self.fleet, self.admission, self.lane, self.again = fleet, admission, lane, again
        self.visit = Visit(admission, band, f"t{band}", None, 10)
        self.done = asyncio.Event()
        self.served = 0
        self.refused = ""
        self.task = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        try:
            for _ in range(2 if self.again else 1):
                place = await self.visit.enter(self.lane, lambda: self.fleet.look(self.lane), self._take)
                self.served += 1
                try:
                    await self.done.wait()
                finally:
                    place.end()
                self.done.clear()
        except NotLetInError as refusal:
            self.refused = refusal.kind
        finally:
            self.visit.close()

    def _take(self) -> Place:
        worker = next(w for w in LANES[self.lane] if w in self.fleet.up and self.fleet.busy[w] < CAPS[w])
        self.fleet.busy[worker] += 1
        return Place(self.fleet, self.admission, worker)


ops = st.one_of(
    st.tuples(st.just("come"), st.sampled_from(sorted(LANES)), st.integers(0, 2), st.booleans()),
    st.tuples(st.sampled_from(("finish", "leave", "lapse")), st.integers(0, 40)),
    st.tuples(st.just("race"), st.integers(0, 5), st.integers(0, 5), st.integers(0, 4)),
    st.tuples(st.sampled_from(("down", "up")), st.sampled_from(sorted(CAPS))),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(ops, max_size=60))
def test_nothing_is_lost_and_no_bound_is_passed(script: list[tuple[str, ...]]) -> None:
    asyncio.run(play(script))


async def play(script: list[tuple[str, ...]]) -> None:
    fleet = Fleet()
    admission = Admission(RouterConfig(max_concurrent=MOST, queue_size=QUEUE, band_patience=2))
    clients: list[Client] = []
    for op in script:
        await step(op, fleet, admission, clients)
        await settle()
        check(fleet, admission, clients)
    fleet.up = set(CAPS)
    for _ in range(2 * len(clients) + 1):
        admission.dispatch()
        for client in clients:
            client.done.set()
        await settle()
    assert all(client.task.done() for client in clients), "somebody waits for ever"
    assert (admission.running, admission.waiting_bytes, len(admission)) == (0, 0, 0)
    assert set(fleet.busy.values()) == {0}
    for client in clients:
        ended = client.task.cancelled() or client.refused or client.served == 1 + client.again
        assert ended, f"a request was lost after {client.served} grants"


async def step(op: tuple[str, ...], fleet: Fleet, admission: Admission, clients: list[Client]) -> None:
    kind = op[0]
    if kind == "come":
        clients.append(Client(fleet, admission, op[1], int(op[2]), bool(op[3])))
    elif kind == "down":
        fleet.up.discard(op[1])
        admission.dispatch()
    elif kind == "up":
        fleet.up.add(op[1])
        admission.dispatch()
    elif kind == "lapse":
        waiters = [waiter for gate in admission._gates.values() for waiter in gate.waiters]
        if waiters:
            admission._lapse(waiters[int(op[1]) % len(waiters)])
    elif kind == "race":  # one leaves a few turns of the loop after another has made room for it
        waiting = [client for client in clients if not client.task.done() and client.served == 0]
        serving = [client for client in clients if not client.task.done() and client.served]
        if waiting and serving:
            serving[int(op[1]) % len(serving)].done.set()
            for _ in range(int(op[3])):
                await asyncio.sleep(0)
            waiting[int(op[2]) % len(waiting)].task.cancel()
    else:
        running = [client for client in clients if not client.task.done()]
        if running and kind == "finish":
            running[int(op[1]) % len(running)].done.set()
        elif running:
            running[int(op[1]) % len(running)].task.cancel()


async def settle() -> None:
    """Let all tasks run until each of them waits: a grant takes three turns of the loop, and may lead to others."""
    for _ in range(30):
        await asyncio.sleep(0)


def check(fleet: Fleet, admission: Admission, clients: list[Client]) -> None:
    assert all(fleet.busy[worker] <= cap for worker, cap in CAPS.items())
    assert admission.running <= MOST
    assert admission.running == sum(client.visit.admitted for client in clients)
    newcomers = sum(admission.depths()[1:])
    assert newcomers <= QUEUE
    for (admitted, lane), gate in admission._gates.items():
        assert gate.waiters, "a lane without waiters is kept"
        stuck = fleet.look(lane) is Room.FREE and (admitted or admission.running < MOST)
        assert not stuck, f"{len(gate.waiters)} wait in lane {lane} although there is room"
        assert fleet.look(lane) is not Room.NONE, f"{len(gate.waiters)} wait in lane {lane} for nobody"
