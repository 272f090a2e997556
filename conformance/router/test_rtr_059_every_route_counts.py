"""RTR-059."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from gaugeblock.conformance.check import check
from gaugeblock.conformance.engine.evidence import Note
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.fixtures.workers.script import HEALTHY, Answer

ROUTES = {
    "chat": ("/v1/chat/completions", False),
    "chat streamed": ("/v1/chat/completions", True),
    "generate": ("/generate", False),
    "generate streamed": ("/generate", True),
}
QUICK, LIMIT, PATIENCE = 30, 1, 6.0


@pytest.mark.parametrize("route", ROUTES)
@check(
    "RTR-059",
    feature="least-load",
    level="extended",
    bound="the worker with a request in flight gets at most 1 of 30 quick ones, for a race; if it is not counted it "
    "gets 10, and at most 1 with probability 8e-5",
    sources=("https://github.com/sgl-project/sglang/issues/27547",),
)
def test_rtr_059(router_lab: LabFactory, note: Note, route: str) -> None:
    """A request in flight counts as load on whichever route it came.

    Requests of one route were invisible to the policy, and others were piled on top of them. Look at where the count is
    kept: in the handler of one path, or around every request that goes to a worker.
    """
    path, stream = ROUTES[route]
    lab = router_lab("least_load", needs=("native-api",) if path == "/generate" else ())
    gate = lab.gate()
    for worker in lab.workers:
        worker.always(lambda arrival: Answer(hold=gate) if b"held" in arrival.body else HEALTHY)
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(lab.send, "held", path=path, stream=stream)
        try:
            lab.loop.wait_for(
                lambda: len(lab.arrivals()) == 1, PATIENCE, lambda: f"one request at a worker: {lab.counts()}"
            )
            busy = lab.worker(lab.arrivals()[0].worker)
            quick = [lab.send(f"quick {number}").worker for number in range(QUICK)]
        finally:
            gate.open()
        assert held.result().reply.ok, f"the held request ended with {held.result().reply.shown}"
    piled = quick.count(busy.name)
    note(f"{route}: {piled} of {QUICK} quick requests went to the worker that was busy with it")
    assert piled <= LIMIT, f"{piled} of {QUICK} requests were sent to {busy.name}, busy with a request by {route}"
