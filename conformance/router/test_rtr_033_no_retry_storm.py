"""RTR-033."""

from __future__ import annotations

from collections import Counter

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.fixtures.workers.script import RESET_AT_ONCE


@check(
    "RTR-033",
    feature="retries",
    level="extended",
    bound="exact: each of the 3 workers sees a request at most once",
    sources=("https://github.com/radixark/miles/issues/1334",),
)
def test_rtr_033(router_lab: LabFactory) -> None:
    """When every worker fails, a request is tried once at each and then fails.

    Retrying the same workers multiplies the load on a fleet that is going down. Look at the number of attempts and at
    what its HTTP client retries by itself.
    """
    lab = router_lab(needs=("retries",))
    for worker in lab.workers:
        worker.always(RESET_AT_ONCE)
    sent = lab.send("nobody can")
    seen = Counter(arrival.worker for arrival in sent.arrivals)
    assert sent.reply.status >= 500, f"no worker answered, yet the client got {sent.reply.shown}"
    assert max(seen.values(), default=0) <= 1, f"one request was sent {sum(seen.values())} times: {dict(seen)}"
