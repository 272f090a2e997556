"""RTR-011."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.endings import ending_of_death
from gaugeblock.conformance.router.labs import LabFactory


@check(
    "RTR-011",
    feature="proxy",
    bound="exact: an error event or a broken connection, never an end in good order",
    sources=("https://github.com/open-webui/open-webui/issues/29628",),
)
def test_rtr_011(router_lab: LabFactory) -> None:
    """A stream whose worker dies never ends as if it were whole.

    The client would take half an answer for all of it. Look at what is written when reading from the worker fails after
    the head has gone out: finishing the chunked body in order is a lie.
    """
    lab = router_lab()
    for _ in range(3):
        ending, _ = ending_of_death(lab)
        assert not ending.clean, f"the worker died after 2 of 5 frames, yet the stream ended cleanly: {ending.shown}"
