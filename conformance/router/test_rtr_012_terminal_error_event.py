"""RTR-012."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.endings import ending_of_death
from gaugeblock.conformance.router.labs import LabFactory


@check(
    "RTR-012",
    feature="proxy",
    level="extended",
    bound="exact: an event with an error after the two frames that the worker sent, and the frames themselves whole",
    sources=("https://github.com/open-webui/open-webui/issues/29628",),
)
def test_rtr_012(router_lab: LabFactory) -> None:
    """A stream whose worker dies ends with an error event.

    A bare close leaves the client guessing: many HTTP stacks report it as the end. Look at whether the error is written
    as an event of the API family in use, before the body is ended.
    """
    lab = router_lab()
    ending, _ = ending_of_death(lab)
    assert ending.error, f"the worker died after 2 of 5 frames and no error event told the client: {ending.shown}"
    words = [e for e in ending.events if not e.done and "choices" in e.data]
    assert len(words) == 2, (
        f"the worker sent 2 whole frames before it died, the client got {len(words)}: {ending.shown}"
    )
