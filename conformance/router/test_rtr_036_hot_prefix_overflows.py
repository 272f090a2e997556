"""RTR-036."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.engine.evidence import Note
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.conformance.router.texts import largest_share, unrelated
from gaugeblock.conformance.router.together import spread_of

REQUESTS, LIMIT = 96, 0.9


@check(
    "RTR-036",
    feature="cache-aware",
    level="extended",
    bound="no worker holds more than 9/10 of 96 requests at once: two idle ones beside a queue of 86 help nobody",
    sources=("https://github.com/sgl-project/sglang/pull/14532", "https://github.com/sgl-project/sglang/issues/32195"),
)
def test_rtr_036(router_lab: LabFactory, note: Note) -> None:
    """A prefix in great demand is served by more than one worker.

    All requests queue where the prefix is cached while other workers idle. Look at how load weighs against a match.
    """
    lab = router_lab("cache_aware")
    prompt = unrelated(1, size=2000, seed=lab.mark())[0]
    lab.send(prompt).reply.expect(200)
    counts = spread_of(lab, REQUESTS, lambda: lab.send(prompt))
    note(f"{REQUESTS} concurrent requests with one prefix: {counts}")
    assert largest_share(counts) <= LIMIT, f"{REQUESTS} requests with one hot prefix queued on one worker: {counts}"
