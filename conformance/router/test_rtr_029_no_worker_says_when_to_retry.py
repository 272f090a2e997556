"""RTR-029."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.fixtures.targets.wire import Limits

PATIENCE = 5.0


@check(
    "RTR-029",
    feature="health",
    level="extended",
    bound="503 with Retry-After within 5 s",
    sources=("https://www.rfc-editor.org/rfc/rfc9110#section-15.6.4",),
)
def test_rtr_029(router_lab: LabFactory) -> None:
    """Without a worker a request gets 503, a reason in JSON, and when to try again.

    Clients cannot tell a fleet that is restarting from a broken request. Look at the
    answer for an empty list of candidates.
    """
    lab = router_lab(needs=("health", "readiness"), workers=2)
    for worker in lab.workers:
        worker.kill()
    lab.await_readiness(503)
    reply = lab.send("anybody", limits=Limits(2.0, PATIENCE, PATIENCE)).reply
    assert reply.status == 503, f"with no worker left the router answered {reply.shown}"
    assert reply.json(), f"the 503 says nothing: {reply.shown}"
    wait = reply.headers.get("retry-after", "")
    assert wait.isdigit(), f"a 503 without a worker needs Retry-After in seconds, got {wait!r}: {reply.shown}"
