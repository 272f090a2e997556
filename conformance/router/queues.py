"""How the checks of the queue hold requests back, one by one, without ever sleeping."""

from __future__ import annotations

from typing import Any

from gaugeblock.fixtures.targets.pending import Pending
from gaugeblock.fixtures.targets.router import CHAT, RouterLab
from gaugeblock.fixtures.workers.loop import Gate
from gaugeblock.fixtures.workers.script import Answer, Arrival

PATIENCE = 4.0
"""Seconds until a request that may be served has reached a worker; it takes milliseconds."""
ASKED = 6  # answers after which a router has read what was sent before


class Turnstile:
    """All workers of a lab hold each generation until :meth:`let` lets it go; ``came`` lists them in order.

    ``streamed``: the first frame of a stream goes out, the rest is held. ``most`` is the largest number of generations
    that were under way at once, ``most_at`` the same by worker, as the workers count when one arrives.
    """

    def __init__(self, lab: RouterLab, size: int, *, streamed: bool = False) -> None:
        self._lab = lab
        self._gates = [lab.gate() for _ in range(size)]
        self._streamed = streamed
        self.came: list[Arrival] = []
        self.most = 0
        self.most_at = dict.fromkeys((worker.name for worker in lab.workers), 0)
        for worker in lab.workers:
            worker.always(self._answer)

    def _answer(self, arrival: Arrival) -> Answer:
        """Called by the workers, on their loop."""
        gate: Gate = self._gates[len(self.came)]
        self.came.append(arrival)
        counts = {worker.name: worker.in_flight for worker in self._lab.workers}
        self.most = max(self.most, sum(counts.values()))
        for name, count in counts.items():
            self.most_at[name] = max(self.most_at[name], count)
        return Answer(frame_hold=gate) if self._streamed else Answer(hold=gate)

    def let(self, number: int) -> None:
        """Let the ``number``-th arrival go, once it is there, and wait until its worker has answered it."""
        self.await_arrivals(number + 1)
        self._gates[number].open()
        self._lab.loop.wait_for(
            lambda: self.came[number].ended, PATIENCE, f"the worker to end generation {number} of {len(self.came)}"
        )

    def open(self) -> None:
        """Hold nobody any more."""
        for gate in self._gates:
            gate.open()

    def await_arrivals(self, count: int) -> None:
        """Wait until ``count`` generations have come."""
        self._lab.loop.wait_for(
            lambda: len(self.came) >= count,
            PATIENCE,
            lambda: f"{count} generations at the workers while there was room; {len(self.came)} came",
        )


class Crowd:
    """The requests of a check by name, all sent from its own thread; what is left unread ends with the ``with``."""

    def __init__(self, lab: RouterLab) -> None:
        self._lab = lab
        self.sent: dict[str, Pending] = {}

    def __enter__(self) -> Crowd:
        return self

    def __exit__(self, *_: object) -> None:
        for pending in self.sent.values():
            pending.leave()

    def send(
        self,
        name: str,
        *,
        band: str | None = None,
        tenant: str | None = None,
        timeout: float | None = None,
        **fields: Any,
    ) -> Pending:
        """Send a chat and do not wait; ``timeout`` in seconds is what the request asks of the router."""
        launcher, mark = self._lab.launcher, self._lab.mark()
        headers = dict([launcher.bands[band]]) if band is not None else {}
        if tenant is not None:
            headers[launcher.tenant_header] = tenant
        if timeout is not None:
            headers[launcher.timeout_header] = f"{timeout:g}"
        body = self._lab.body(f"{name} {mark}", **fields)
        pending = self.sent[name] = Pending(self._lab.url, CHAT, body, headers, mark, self._lab.connect)
        return pending

    def enqueue(self, name: str, **options: Any) -> Pending:
        """As :meth:`send`, and return once the router has read it: it has answered later requests."""
        pending = self.send(name, **options)
        self.settle()
        return pending

    def settle(self) -> None:
        """Return once the router has taken note of everything that was sent before."""
        for _ in range(ASKED):
            self._lab.wire.call("GET", "/readiness")

    def statuses(self, *names: str) -> dict[str, int]:
        """Wait for the answers to the requests of these names, all if none is given; return their statuses."""
        return {name: self.sent[name].reply().status for name in names or self.sent}

    def order(self, turnstile: Turnstile) -> list[str]:
        """Return the names of the requests in the order in which they reached a worker."""
        names = {pending.mark.encode(): name for name, pending in self.sent.items()}
        return [next((n for mark, n in names.items() if mark in one.body), "?") for one in turnstile.came]
