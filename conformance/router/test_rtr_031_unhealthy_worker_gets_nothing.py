"""RTR-031."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory

REQUESTS = 24


@check(
    "RTR-031",
    feature="health",
    bound="exact once the router counts 2 healthy workers: 0 of 24 requests, then at least 1 of 24 after recovery",
    sources=("https://github.com/vllm-project/aibrix/issues/781",),
)
def test_rtr_031(router_lab: LabFactory) -> None:
    """A worker that says it is not healthy gets no traffic until it is again.

    It would have answered, but it asked to be left alone: it is draining or loading weights. Look at whether routing
    uses the health that readiness reports.
    """
    lab = router_lab(needs=("health", "readiness"))
    worker = lab.workers[0]
    worker.health = "down"
    lab.await_readiness(200, healthy=2)
    for number in range(REQUESTS):
        lab.send(f"request {number}").reply.expect(200)
    assert not worker.requests, f"a worker known to be unhealthy got {len(worker.requests)} of {REQUESTS} requests"
    worker.health = "up"
    lab.await_readiness(200, healthy=3)
    for number in range(REQUESTS):
        lab.send(f"request {number}").reply.expect(200)
    assert worker.requests, f"a worker that recovered got none of {REQUESTS} requests: {lab.counts()}"
