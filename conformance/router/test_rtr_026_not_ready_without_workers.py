"""RTR-026."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory


@check(
    "RTR-026",
    feature="readiness",
    bound="503 within 10 s of the last worker's death and 200 within 10 s of its return: several health checks each",
    sources=("https://github.com/vllm-project/aibrix/issues/781",),
)
def test_rtr_026(router_lab: LabFactory) -> None:
    """A router without a living worker is not ready, and ready again when one returns.

    A balancer in front keeps sending traffic to it. Look at what readiness looks at: the router's own life is for
    liveness.
    """
    lab = router_lab(needs=("readiness",), workers=2)
    for worker in lab.workers:
        worker.kill()
    lab.await_readiness(503)
    lab.workers[0].revive()
    lab.await_readiness(200)
    reply = lab.send("are you back").reply
    assert reply.status == 200, f"the router is ready again but answers {reply.shown}"
