"""RTR-014."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.endings import ending_of_death
from gaugeblock.conformance.router.labs import LabFactory

FAILURES, REQUESTS = 3, 16


@check(
    "RTR-014",
    feature="breakers",
    bound="at most threshold + 1 of 16 streams reach a worker that kills each; round robin alone would send 8",
    sources=("https://github.com/open-webui/open-webui/issues/29628",),
)
def test_rtr_014(router_lab: LabFactory) -> None:
    """A worker whose streams die midway is taken out of rotation.

    Streams were scored by their status line, 200, so the worker kept its traffic. Look at when a stream is scored: only
    its end tells how it went.
    """
    lab = router_lab(needs=("breakers",), workers=2, breaker_failures=FAILURES, fresh=True)
    for _ in range(REQUESTS):
        ending_of_death(lab, lab.workers[0])
    reached = len(lab.workers[0].requests)
    assert reached, "no stream reached the failing worker: there was nothing to judge"
    assert reached <= FAILURES + 1, (
        f"a worker that let every stream die midway got {reached} of {REQUESTS} streams; "
        f"its breaker should have opened after {FAILURES} faults"
    )
