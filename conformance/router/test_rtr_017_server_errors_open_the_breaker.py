"""RTR-017."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.fixtures.workers.script import Answer

FAILURES, REQUESTS = 3, 16


@check(
    "RTR-017",
    feature="breakers",
    bound="at most threshold + 1 of 16 requests reach a worker that answers 500; round robin alone would send 8",
    sources=("https://github.com/vllm-project/router/pull/60",),
)
def test_rtr_017(router_lab: LabFactory) -> None:
    """A worker that answers 500 is taken out of rotation.

    Its health check says all is well, and it kept its share of the traffic. Look at whether answers are scored at all.
    """
    lab = router_lab(needs=("breakers",), workers=2, breaker_failures=FAILURES, fresh=True)
    lab.workers[0].always(Answer(status=500))
    for number in range(REQUESTS):
        lab.send(f"request {number}")
    reached = len(lab.workers[0].requests)
    assert reached, "no request reached the failing worker: there was nothing to judge"
    assert reached <= FAILURES + 1, (
        f"a worker that answers 500 got {reached} of {REQUESTS} requests; its breaker should have opened after "
        f"{FAILURES} faults"
    )
