"""RTR-088."""

from __future__ import annotations

import json

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.conformance.router.texts import unrelated
from gaugeblock.fixtures.targets.router import RouterLab, chat
from gaugeblock.fixtures.workers.script import Answer

COPIES, PROMPTS, FAILURES = 2, 12, 2


@check(
    "RTR-088",
    feature="prewarm",
    level="extended",
    bound="exact: 12 prompts go to 2 of 3 workers and 12 to 1, once each, and 24 requests follow: a chance "
    "of 1e-8 if nobody told the policy; 4 warm-ups that fail open no breaker",
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
    *prompts, other = unrelated(2 * PROMPTS + 1, size=2000, seed="prewarm")
    for copies, group in ((COPIES, prompts[:PROMPTS]), (1, prompts[PROMPTS:])):
        _prewarm(lab, group, copies)
        homes = {prompt: [arrival.worker for arrival in lab.arrivals(prompt)] for prompt in group}
        wrong = [workers for workers in homes.values() if len(workers) != copies or len(set(workers)) != copies]
        assert not wrong, f"a prefix for {copies} workers was sent to {wrong[0]}"
        strays = [prompt for prompt in group if lab.send(f"{prompt} and then").worker not in homes[prompt]]
        assert not strays, f"{len(strays)} of {len(group)} requests went to workers where their prefix is cold"

    for worker in lab.workers:
        worker.always(lambda arrival: Answer(status=500) if other.encode() in arrival.body else Answer())
    for _ in range(2 * FAILURES):
        lab.wire.call("POST", "/prewarm", _order([other], len(lab.workers)))
    available = lab.readiness().json().get("available_workers")
    assert available == len(lab.workers), (
        f"{2 * FAILURES} warm-ups that failed left {available} of {len(lab.workers)} workers in rotation: "
        "they were taken for clients' requests"
    )


def _prewarm(lab: RouterLab, prompts: list[str], workers: int) -> None:
    reply = lab.wire.call("POST", "/prewarm", _order(prompts, workers))
    assert reply.ok, f"POST /prewarm answered {reply.shown}"


def _order(prompts: list[str], workers: int) -> bytes:
    return json.dumps({"prompts": [chat(prompt) for prompt in prompts], "workers": workers}).encode()
