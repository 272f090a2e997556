"""RTR-015."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.endings import ending_of_death
from gaugeblock.conformance.router.labs import LabFactory


@check(
    "RTR-015",
    feature="proxy",
    bound="exact: one generation a request once the client has seen a byte",
    sources=("https://github.com/radixark/miles/issues/1334",),
)
def test_rtr_015(router_lab: LabFactory) -> None:
    """Nothing is generated again after the first byte has gone out.

    A second generation costs its tokens and may be spliced onto the first one. Look at whether the retry asks if
    anything has been sent.
    """
    lab = router_lab()
    for _ in range(3):
        ending, mark = ending_of_death(lab)
        route = [arrival.worker for arrival in lab.arrivals(mark)]
        assert len(route) == 1, f"a stream that had begun was generated again: it reached {route}; {ending.shown}"
