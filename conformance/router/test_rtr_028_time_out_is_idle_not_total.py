"""RTR-028."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.endings import ending_of
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.fixtures.workers.script import Answer

TIMEOUT, PACE = 1.0, 0.3


@check(
    "RTR-028",
    feature="timeouts",
    bound="exact: 5 frames 0.3 s apart are never silent for the 1 s of the time-out, though they take 1.2 s",
    sources=("https://github.com/NVIDIA/OpenShell/issues/641",),
)
def test_rtr_028(router_lab: LabFactory) -> None:
    """The time-out cuts silence, not a slow stream that lives.

    Long answers end in the middle. Look at whether the clock of the time-out starts anew with every piece.
    """
    lab = router_lab(needs=("timeouts",), workers=1, idle_timeout=TIMEOUT)
    lab.workers[0].always(Answer(pace=PACE))
    ending, _ = ending_of(lab)
    assert ending.clean, f"a live stream with {PACE:g} s between frames was cut by a time-out of 1 s: {ending.shown}"
    assert any(event.done for event in ending.events), f"a live stream lost its end: {ending.shown}"
