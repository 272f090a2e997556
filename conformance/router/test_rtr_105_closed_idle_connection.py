"""RTR-105."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory

REQUESTS = 8


@check(
    "RTR-105",
    feature="proxy",
    bound="exact: 8 of 8; a request that finds its kept connection closed in good order was not read by anybody",
    sources=(
        "https://www.rfc-editor.org/rfc/rfc9112#section-9.3.1",
        "https://www.rfc-editor.org/rfc/rfc9112#section-9.5",
    ),
)
def test_rtr_105(router_lab: LabFactory) -> None:
    """A worker that closes an idle connection just as it is used again costs nothing.

    Under steady light load a few requests a day failed with a reset and nothing in the worker's log: its keep-alive
    limit had passed. Look at what happens to a request on a reused connection that is closed before any byte of an
    answer: a new connection to the same worker, once.
    """
    lab = router_lab(workers=1)
    lab.workers[0].closes_kept = True
    sent = [lab.send(f"request {number}") for number in range(REQUESTS)]
    failed = [one.reply.shown for one in sent if one.reply.status != 200]
    assert not failed, f"{len(failed)} of {REQUESTS} requests failed on a kept connection that was closed: {failed[0]}"
    assert all(len(one.arrivals) == 1 for one in sent), "a request was generated more than once"
