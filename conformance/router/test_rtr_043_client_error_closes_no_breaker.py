"""RTR-043."""

from __future__ import annotations

import time

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.fixtures.targets.router import RouterLab
from gaugeblock.fixtures.workers.script import Answer

FAILURES, COOLDOWN, PATIENCE = 4, 1.0, 8.0


@check(
    "RTR-043",
    feature="breakers",
    level="extended",
    bound="at most 2 of 16 requests reach the worker after its probe was answered with 400: one fault opens a breaker "
    "that is half open, and one race with its cooldown; a closed one takes 4",
    sources=("https://github.com/smg-project/smg/pull/2565",),
)
def test_rtr_043(router_lab: LabFactory) -> None:
    """A client's bad request does not close a half-open breaker.

    The first bad request after the cooldown brought a broken worker back to its full share. Look at what a probe that
    ends with a 4xx decides: it shows that somebody answers, not that the worker can serve.
    """
    lab = router_lab(needs=("breakers",), workers=2, breaker_failures=FAILURES, breaker_cooldown=COOLDOWN, fresh=True)
    worker = lab.workers[0]
    worker.always(Answer(status=500))
    for number in range(4 * FAILURES):
        lab.send(f"request {number}")
    worker.always(Answer(status=400))
    _await_probe(lab)
    worker.always(Answer(status=500))
    before = len(worker.requests)
    for number in range(16):
        lab.send(f"request {number}")
    reached = len(worker.requests) - before
    assert reached <= 2, (
        f"after a probe that got 400 the broken worker was given {reached} of 16 requests: the 4xx closed its breaker"
    )


def _await_probe(lab: RouterLab) -> None:
    worker = lab.workers[0]
    before, deadline = len(worker.requests), time.monotonic() + PATIENCE
    while len(worker.requests) == before:
        assert time.monotonic() < deadline, (
            f"no probe reached the worker within {PATIENCE:g} s of its breaker's opening"
        )
        lab.send("is it time for a probe")
        time.sleep(0.05)  # the cooldown is the router's own clock; asking more often would only load it
