"""RTR-005."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.engine.evidence import Note
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.conformance.router.texts import largest_share, unrelated

PROMPTS, LIMIT = 24, 0.75


@check(
    "RTR-005",
    feature="cache-aware",
    bound="the largest share of 24 is at most 3/4; uniform choice among 3 passes it with probability 1.5e-5",
    sources=("https://github.com/sgl-project/sglang/issues/27547", "https://github.com/sgl-project/sglang/pull/14532"),
)
def test_rtr_005(router_lab: LabFactory, note: Note) -> None:
    """Unrelated prompts, one after the other, spread over idle workers.

    All went to one worker while the others idled: its cache overflows and theirs stay cold. Look at how ties between
    equally idle workers are broken; the first in a list is no tie break.
    """
    lab = router_lab("cache_aware")
    for prompt in unrelated(PROMPTS, size=600, seed=lab.mark()):
        lab.send(prompt).reply.expect(200)
    counts = lab.counts()
    note(f"{PROMPTS} unrelated prompts: {counts}")
    assert largest_share(counts) <= LIMIT, f"{PROMPTS} unrelated sequential prompts herded onto one worker: {counts}"
