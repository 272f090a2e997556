"""RTR-013."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.endings import ending_of_death
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.fixtures.workers.script import End


@check(
    "RTR-013",
    feature="proxy",
    level="extended",
    bound="exact: a stream of chat chunks without [DONE] is not passed on as a whole one",
    sources=("https://github.com/open-webui/open-webui/issues/29628",),
)
def test_rtr_013(router_lab: LabFactory) -> None:
    """A worker's stream that ends in order but without [DONE] is an error.

    An engine that is shutting down closes its streams politely; only the missing mark tells. Look at whether the router
    remembers having seen the mark when the worker's body ends.
    """
    lab = router_lab()
    ending, _ = ending_of_death(lab, end=End.TRUNCATE)
    assert not ending.clean, f"a stream without its [DONE] was passed on as whole: {ending.shown}"
