"""RTR-045."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.fixtures.workers.script import RESET_AT_ONCE

PATIENCE = 3.0


@check(
    "RTR-045",
    feature="retries",
    level="extended",
    bound="exact: the worker that failed hears of its request's id within 3 s, the one that serves it does not",
    sources=("https://github.com/radixark/miles/issues/1334",),
)
def test_rtr_045(router_lab: LabFactory) -> None:
    """A retry tells the worker that it leaves to stop.

    The connection broke, the engine behind it goes on: the request is generated twice and holds its pages twice. Look
    at whether the id (``rid``) is sent to ``/abort_request`` of the worker that failed, and of no other: the retry
    carries the same id.
    """
    lab = router_lab(needs=("retries", "abort", "native-api"), workers=2)
    left, served = lab.workers
    left.always(RESET_AT_ONCE)
    rids = [f"gaugeblock-{lab.mark()}-{number}" for number in range(4)]
    sent = [lab.send("orphan", path="/generate", rid=rid) for rid in rids]
    failed = [one.reply.shown for one in sent if one.reply.status != 200]
    assert not failed, f"{len(failed)} of 4 requests failed beside a healthy worker: {failed[0]}"
    orphans = [rid for rid, one in zip(rids, sent, strict=True) if one.arrivals[0].worker == left.name]
    assert orphans, "no request reached the failing worker first: there was nothing to judge"
    lab.loop.wait_for(
        lambda: set(orphans) <= set(left.aborts),
        PATIENCE,
        lambda: (
            f"a retry aborts the request that it leaves behind: {orphans} at {left.name}, which heard {left.aborts}"
        ),
    )
    told = set(served.aborts) & set(rids)
    assert not told, f"the worker that serves the retry was told to abort it: {sorted(told)}"
    doubled = [[arrival.worker for arrival in one.arrivals] for one in sent if len(one.arrivals) > 2]
    assert not doubled, f"one request was generated more than once: {doubled[0]}"
