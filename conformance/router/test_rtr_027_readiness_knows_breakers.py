"""RTR-027."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.fixtures.workers.script import HEALTHY, Answer

FAILURES, REQUESTS = 3, 12


@check(
    "RTR-027",
    feature="readiness",
    bound="exact: ready if and only if a good request is served",
    sources=("https://github.com/vllm-project/router/pull/60",),
)
def test_rtr_027(router_lab: LabFactory) -> None:
    """A router whose breakers are all open is not ready.

    It refuses every request and says that it is ready, so nothing in front routes around it. Look at whether readiness
    asks what a request would ask: health and breakers.
    """
    lab = router_lab(needs=("readiness", "breakers"), workers=2, breaker_failures=FAILURES, fresh=True)
    for worker in lab.workers:
        worker.always(Answer(status=500))
    for number in range(REQUESTS):
        lab.send(f"request {number}")
    for worker in lab.workers:
        worker.always(HEALTHY)
    ready = lab.readiness()
    reply = lab.send("would you serve me").reply
    assert (ready.status == 200) == (reply.status == 200), (
        f"/readiness answers {ready.status} while a request gets {reply.shown}"
    )
