"""RTR-099."""

from __future__ import annotations

import json

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.endings import read_to_end
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.conformance.router.pairs import PATIENCE, halves, pair_lab
from gaugeblock.fixtures.errors import TargetFault
from gaugeblock.fixtures.targets.parallel import parallel
from gaugeblock.fixtures.targets.router import RouterLab
from gaugeblock.fixtures.workers.loop import Gate
from gaugeblock.fixtures.workers.script import Answer


@check(
    "RTR-099",
    feature="abort",
    level="extended",
    bound="both workers hear of it within 3 s; it takes milliseconds",
    sources=(
        "https://github.com/sgl-project/sglang/issues/8177",
        "https://github.com/sgl-project/sglang/pull/9817",
        "https://github.com/vllm-project/aibrix/pull/2746",
    ),
)
def test_rtr_099(router_lab: LabFactory) -> None:
    """An abort reaches the prefill and the decode worker of the request.

    The half that is not told goes on, and a transfer to pages that the other half has freed corrupts a later request.
    The decode worker hears of it and goes on here, so that no end of its own makes the router call prefill off. Look at
    whether the order goes to both sides.
    """
    lab = pair_lab(router_lab, needs=("abort", "native-api"))
    gate, rid = lab.gate(), f"gaugeblock-{lab.mark()}"
    for worker in lab.prefills:
        worker.always(Answer(hold=gate))
    for worker in lab.decodes:
        worker.heeds_aborts = False
    body = lab.body(rid, stream=True, path="/generate", rid=rid)
    parallel([lambda: _generate(lab, body), lambda: _abort(lab, rid, gate)])
    _require_heard(lab, rid)  # wherever it has gone since


def _generate(lab: RouterLab, body: bytes) -> None:
    try:
        with lab.wire.exchange("POST", "/generate", body, {}) as exchange:
            read_to_end(exchange)
    except TargetFault:  # how an aborted request ends is not the matter here
        return


def _abort(lab: RouterLab, rid: str, gate: Gate) -> None:
    try:
        lab.loop.wait_for(
            lambda: all(halves(lab, lab.arrivals(rid))), PATIENCE, f"{rid} at a prefill and a decode worker"
        )
        reply = lab.wire.call("POST", "/abort_request", json.dumps({"rid": rid}).encode())
        assert reply.status == 200, f"POST /abort_request answered {reply.shown}"
        _require_heard(lab, rid)
    finally:
        gate.open()  # what was not aborted ends


def _require_heard(lab: RouterLab, rid: str) -> None:
    lab.loop.wait_for(
        lambda: _heard(lab, rid),
        PATIENCE,
        lambda: (
            f"an abort of {rid} at both workers; the aborts heard: { ({w.name: w.aborts for w in lab.workers}) }, "
            f"the request is {[(arrival.worker, arrival.ended or 'running') for arrival in lab.arrivals(rid)]}"
        ),
    )


def _heard(lab: RouterLab, rid: str) -> bool:
    prefill, decode = halves(lab, lab.arrivals(rid))
    told = {worker.name for worker in lab.decodes if rid in worker.aborts}
    return all(arrival.ended == "aborted" for arrival in prefill) and all(arrival.worker in told for arrival in decode)
