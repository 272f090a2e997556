"""RTR-087."""

from __future__ import annotations

import json

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.conformance.router.texts import WORDS
from gaugeblock.fixtures.targets.router import RouterLab
from gaugeblock.fixtures.workers.script import HANG_AT_ONCE, Answer
from gaugeblock.fixtures.workers.worker import ScriptedWorker

SYSTEM = " ".join(f"{word} office rules apply here" for word in WORDS)
REQUESTS, PATIENCE = 6, 12.0


@check(
    "RTR-087",
    feature="warm-join",
    level="extended",
    bound="exact: the hottest prefix comes before the first of 6 requests; a hanging warm-up delays by 12 s at most",
    sources=("https://github.com/NVIDIA/TensorRT-LLM/pull/14307",),
)
def test_rtr_087(router_lab: LabFactory) -> None:
    """A worker that joins has the hottest prefix before its first request, and joins even if warming it up fails.

    Its first clients paid for a cold cache, all at once. Or a worker that could not be warmed up never got traffic.
    Look at what comes first, the warm-up or the traffic, and at what bounds the warm-up.
    """
    lab = router_lab(needs=("worker-admin", "readiness", "warm-join"), workers=1, warm_prefixes=1, fresh=True)
    for number in range(3):
        lab.send(f"{SYSTEM} question {number}").reply.expect(200)
    spare = lab.spare()
    _join(lab, spare, 2)
    _serve(lab, spare)
    first = spare.requests[0]
    assert SYSTEM.encode() in first.body, (
        f"a new worker got a client's request on a cold cache, before any warm-up: {first.body[:200]!r}"
    )

    hung = lab.spare()
    hung.always(lambda arrival: Answer() if b"client " in arrival.body else HANG_AT_ONCE)
    _join(lab, hung, 3)
    _serve(lab, hung)


def _join(lab: RouterLab, worker: ScriptedWorker, healthy: int) -> None:
    reply = lab.wire.call("POST", "/workers", json.dumps({"url": worker.url}).encode())
    assert 200 <= reply.status < 300, f"POST /workers answered {reply.shown}"
    lab.await_readiness(200, healthy=healthy, timeout=PATIENCE)


def _serve(lab: RouterLab, worker: ScriptedWorker) -> None:
    for number in range(REQUESTS):
        lab.send(f"client {number}").reply.expect(200)
    served = [arrival for arrival in worker.requests if b"client " in arrival.body]
    assert served, f"a worker that joined got none of {REQUESTS} requests"
