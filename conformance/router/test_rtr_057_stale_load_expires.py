"""RTR-057."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from gaugeblock.conformance.check import check
from gaugeblock.conformance.engine.evidence import Note
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.fixtures.targets.router import CONVERGENCE, RouterLab
from gaugeblock.fixtures.workers.script import Answer
from gaugeblock.fixtures.workers.worker import LOAD_PATHS, ScriptedWorker

BUSY, PATIENCE = 12, 6.0
POLL = 1.2  # seconds in which a router that polls loads does so at least once; the kit sets 1 s where it can


@check(
    "RTR-057",
    feature="least-load",
    level="extended",
    bound="some request within 10 s goes to the worker that is idle again; each of hundreds does with probability 1/3",
    sources=(
        "https://github.com/smg-project/smg/pull/1683",
        "https://github.com/sgl-project/sglang/issues/28634",
    ),
)
def test_rtr_057(router_lab: LabFactory, note: Note) -> None:
    """A worker that was busy, and whose load can no longer be asked, gets work again.

    The last known load of a worker counted for ever, so that an idle one got nothing more. Look at whether a figure has
    an age, and at what takes its place when it is too old: the router's own count, not the old figure and not zero.
    """
    lab = router_lab("least_load", fresh=True)
    worker, gate = lab.workers[0], lab.gate()
    for each in lab.workers:
        each.always(Answer(hold=gate))
    with ThreadPoolExecutor(BUSY) as pool:
        futures = [pool.submit(lab.send, f"busy {number}") for number in range(BUSY)]
        try:
            lab.loop.wait_for(
                lambda: len(lab.arrivals()) >= BUSY and worker.in_flight > 0,
                PATIENCE,
                lambda: f"{BUSY} requests at the workers, some at {worker.name}: {lab.counts()}",
            )
            _await_poll(worker)
            worker.tells_load = False
        finally:
            gate.open()
        assert all(future.result().reply.ok for future in futures), "some of the first requests failed"
    sent = _until_served(lab, worker)
    note(f"{worker.name} got a request again after {sent} others")


def _await_poll(worker: ScriptedWorker) -> None:
    """Wait until the router has asked for the worker's load while it was busy; one that never asks counts itself."""
    seen, deadline = len(worker.calls), time.monotonic() + POLL
    while time.monotonic() < deadline:
        if any(call.target.partition("?")[0] in LOAD_PATHS for call in worker.calls[seen:]):
            return
        time.sleep(0.02)  # a router that does not poll gives no event either


def _until_served(lab: RouterLab, worker: ScriptedWorker) -> int:
    before, sent = len(worker.requests), 0
    deadline = time.monotonic() + CONVERGENCE
    while len(worker.requests) == before:
        assert time.monotonic() < deadline, (
            f"{worker.name} has been idle for {CONVERGENCE:g} s and got none of {sent} requests: an old load still "
            "counts"
        )
        lab.send("is anybody idle").reply.expect(200)
        sent += 1
    return sent - 1
