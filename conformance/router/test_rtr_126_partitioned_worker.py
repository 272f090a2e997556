"""RTR-126."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.fixtures.hosts.network import Link
from gaugeblock.fixtures.targets.wire import Limits

REQUESTS, PATIENCE = 12, 2.0


@check(
    "RTR-126",
    feature="health",
    level="extended",
    bound="exact once the router counts 2 healthy workers: 12 of 12 within 2 s each, none at the one that is cut off; "
    "at least 1 of 24 once it is back",
    sources=("https://github.com/vllm-project/production-stack/issues/749",),
    timeout=60.0,
)
def test_rtr_126(router_lab: LabFactory) -> None:
    """A worker behind a cut link costs nothing once the router knows.

    Nothing refuses the connection there and nothing resets it: whoever waits without a limit waits for minutes. Look at
    the time-out of the health check and of the connection, and at connections that were kept over the cut.
    """
    lab = router_lab.hosts(needs=("health", "readiness"))
    for number in range(REQUESTS):
        lab.send(f"before {number}").reply.expect(200)
    cut = lab.workers[0]
    lab.shape(cut, Link(cut=True))
    lab.await_readiness(200, healthy=2)
    before, limits = len(cut.requests), Limits(PATIENCE, PATIENCE, PATIENCE)
    for number in range(REQUESTS):
        lab.send(f"during {number}", limits=limits).reply.expect(200)
    assert len(cut.requests) == before, f"a worker that is cut off got {len(cut.requests) - before} requests"
    lab.shape(cut, Link())
    lab.await_readiness(200, healthy=3)
    for number in range(2 * REQUESTS):
        lab.send(f"after {number}").reply.expect(200)
    assert len(cut.requests) > before, f"a worker whose link is back got none of {2 * REQUESTS} requests"
