"""RTR-037."""

from __future__ import annotations

import json

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.endings import read_to_end
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.fixtures.workers.script import Answer

PATIENCE = 3.0


@check(
    "RTR-037",
    feature="abort",
    level="extended",
    bound="the worker hears of it within 3 s; it takes milliseconds",
    sources=("https://github.com/sgl-project/sglang/issues/8177", "https://github.com/sgl-project/sglang/issues/36926"),
)
def test_rtr_037(router_lab: LabFactory) -> None:
    """An abort reaches the worker that runs the request.

    The client is told that its request is aborted and the worker goes on. Look at whether the router forwards the order
    to the worker of that request, or to all.
    """
    lab = router_lab(needs=("abort", "native-api"))
    gate, rid = lab.gate(), f"gaugeblock-{lab.mark()}"
    for worker in lab.workers:
        worker.always(Answer(frame_hold=gate))
    body = lab.body(rid, stream=True, path="/generate", rid=rid)
    with lab.wire.exchange("POST", "/generate", body, {}) as exchange:
        next(exchange.pieces())
        reply = lab.wire.call("POST", "/abort_request", json.dumps({"rid": rid}).encode())
        assert reply.status == 200, f"POST /abort_request answered {reply.shown}"
        lab.loop.wait_for(
            lambda: all(arrival.ended == "aborted" for arrival in lab.arrivals(rid)),
            PATIENCE,
            lambda: f"an abort of {rid} at its worker; the aborts heard: {[w.aborts for w in lab.workers]}",
        )
        read_to_end(exchange)
