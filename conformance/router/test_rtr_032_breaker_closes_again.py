"""RTR-032."""

from __future__ import annotations

import time

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.fixtures.workers.script import HEALTHY, Answer

FAILURES, COOLDOWN, PATIENCE = 3, 0.5, 8.0


@check(
    "RTR-032",
    feature="breakers",
    level="extended",
    bound="traffic returns within 8 s after a cooldown of at most 1 s; then at least 3 of 12 requests reach the worker",
    sources=("https://github.com/smg-project/smg/pull/2565",),
)
def test_rtr_032(router_lab: LabFactory) -> None:
    """An open breaker tries the worker again and closes when it is well.

    The worker recovered and stays without traffic, or at a trickle. Look at what happens when the cooldown ends and at
    whether a good probe closes the breaker.
    """
    lab = router_lab(needs=("breakers",), workers=2, breaker_failures=FAILURES, breaker_cooldown=COOLDOWN, fresh=True)
    worker = lab.workers[0]
    worker.always(Answer(status=500))
    for number in range(4 * FAILURES):
        lab.send(f"request {number}")
    worker.always(HEALTHY)
    before, deadline = len(worker.requests), time.monotonic() + PATIENCE
    while len(worker.requests) == before and time.monotonic() < deadline:
        lab.send("are you well again")
        time.sleep(0.1)  # the cooldown is the router's own clock; asking more often would only load it
    assert len(worker.requests) > before, f"no request reached a recovered worker within {PATIENCE:g} s of its recovery"
    before = len(worker.requests)
    for number in range(12):
        lab.send(f"request {number}")
    share = len(worker.requests) - before
    assert share >= 3, f"after a good probe the recovered worker got {share} of 12 requests of a round robin over 2"
