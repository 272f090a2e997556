"""RTR-044."""

from __future__ import annotations

import json

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory

REQUESTS, CALLS, PATIENCE = 12, 3, 10.0


@check(
    "RTR-044",
    feature="health",
    bound="exact: 0 requests before its first good health check, at least 1 of 24 of a round robin over 2 after it",
    sources=("https://github.com/vllm-project/aibrix/issues/781",),
)
def test_rtr_044(router_lab: LabFactory) -> None:
    """A worker that has never been healthy gets no traffic.

    It has joined and is still loading its weights; requests sent there wait or fail. Look at what a worker counts as
    before its first health check has been answered.
    """
    lab = router_lab(needs=("health", "worker-admin"), workers=1, fresh=True)
    spare = lab.spare()
    spare.health = "down"
    reply = lab.wire.call("POST", "/workers", json.dumps({"url": spare.url}).encode())
    assert 200 <= reply.status < 300, f"POST /workers answered {reply.shown}"
    for number in range(REQUESTS):
        lab.send(f"at once {number}").reply.expect(200)
    lab.loop.wait_for(
        lambda: len(spare.calls) >= CALLS, PATIENCE, "the router asks a worker that has joined for health"
    )
    for number in range(REQUESTS):
        lab.send(f"later {number}").reply.expect(200)
    got = len(spare.requests)
    assert not got, f"a worker that was never healthy got {got} of {2 * REQUESTS} requests"
    spare.health = "up"
    lab.await_readiness(200, healthy=2)
    for number in range(2 * REQUESTS):
        lab.send(f"healthy {number}").reply.expect(200)
    assert spare.requests, f"a worker that has become healthy got none of {2 * REQUESTS} requests"
