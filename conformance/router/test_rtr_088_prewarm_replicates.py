"""RTR-088."""

from __future__ import annotations

import json

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.conformance.router.texts import unrelated
from gaugeblock.fixtures.workers.script import Answer

COPIES, FAILURES = 2, 2


@check(
    "RTR-088",
    feature="prewarm",
    level="extended",
    bound="exact: a prefix goes to 2 of 3 workers, once each; 6 requests go there; 4 failing warm-ups open no breaker",
    sources=(
        "https://github.com/NVIDIA/TensorRT-LLM/pull/14307",
        "https://github.com/sgl-project/sglang/issues/32195",
    ),
)
def test_rtr_088(router_lab: LabFactory) -> None:
    """A prefix that is announced is put on N workers, its requests go there, and warm-ups are nobody's traffic.

    The burst went to one worker, or to cold ones; or warm-ups that failed took workers out of rotation. Look at what
    the policy is told of a warm-up, and through which of the router's counters it passes.
    """
    lab = router_lab("cache_aware", needs=("prewarm", "breakers", "readiness"), breaker_failures=FAILURES, fresh=True)
    prompt, other = unrelated(2, size=2000, seed="prewarm")
    messages = {"model": "scripted", "messages": [{"role": "user", "content": prompt}]}
    reply = lab.wire.call("POST", "/prewarm", json.dumps({"prompts": [messages], "workers": COPIES}).encode())
    assert reply.ok, f"POST /prewarm answered {reply.shown}"
    copies = {name: count for name, count in lab.counts().items() if count}
    assert sorted(copies.values()) == [1] * COPIES, f"a prefix for {COPIES} workers was sent to {copies}"
    homes = {lab.send(f"{prompt} and then {number}").worker for number in range(6)}
    assert homes <= copies.keys(), f"requests with a prefix that is warm on {sorted(copies)} went to {sorted(homes)}"

    for worker in lab.workers:
        worker.always(lambda arrival: Answer(status=500) if other.encode() in arrival.body else Answer())
    for _ in range(2 * FAILURES):
        lab.wire.call("POST", "/prewarm", json.dumps({"prompts": [other], "workers": len(lab.workers)}).encode())
    available = lab.readiness().json().get("available_workers")
    assert available == len(lab.workers), (
        f"{2 * FAILURES} warm-ups that failed left {available} of {len(lab.workers)} workers in rotation: "
        "they were taken for clients' requests"
    )
