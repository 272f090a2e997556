"""RTR-047."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.endings import ending_of
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.fixtures.workers.script import dies_after


@check(
    "RTR-047",
    feature="retries",
    level="extended",
    bound="exact: every stream is whole, since its client has been sent nothing of the first attempt",
    sources=("https://github.com/sgl-project/sglang/issues/28175", "https://github.com/radixark/miles/issues/1334"),
)
def test_rtr_047(router_lab: LabFactory) -> None:
    """A worker that dies between the head and the first event of a stream costs nothing.

    Engines send the head as soon as they accept a request and may fail on it afterwards; the client could still be
    served by another worker. Look at how soon the head of a stream is passed on.
    """
    lab = router_lab(needs=("retries",))
    lab.workers[0].always(dies_after(0))
    for number in range(2 * len(lab.workers)):
        ending, mark = ending_of(lab, f"stream {number}")
        route = [arrival.worker for arrival in lab.arrivals(mark)]
        whole = ending.clean and any(event.done for event in ending.events)
        assert whole, f"a stream whose first worker died before any event was lost ({route}): {ending.shown}"
    assert lab.workers[0].requests, "no stream reached the failing worker: there was nothing to judge"
