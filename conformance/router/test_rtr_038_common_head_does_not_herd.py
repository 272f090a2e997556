"""RTR-038."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.engine.evidence import Note
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.conformance.router.texts import largest_share, unrelated

HEAD = (
    "You are a helpful assistant. Answer briefly and in the user's language. When you do not know the answer, say so, "
    "and name your sources where you have some. "
)
PROMPTS, LIMIT = 24, 0.75


@check(
    "RTR-038",
    feature="cache-aware",
    level="extended",
    bound="as RTR-005: the largest share of 24 is at most 3/4; the common head is a tenth of the prompt",
    sources=("https://github.com/sgl-project/sglang/pull/14532", "https://github.com/sgl-project/sglang/issues/27547"),
)
def test_rtr_038(router_lab: LabFactory, note: Note) -> None:
    """A short head that all prompts share does not send them all to one worker.

    Nearly all chats begin alike. Look at how long a match must be, against the whole prompt, before it counts.
    """
    lab = router_lab("cache_aware")
    for prompt in unrelated(PROMPTS, size=10 * len(HEAD), seed=lab.mark()):
        lab.send(HEAD + prompt).reply.expect(200)
    counts = lab.counts()
    note(f"{PROMPTS} prompts with a common head: {counts}")
    assert largest_share(counts) <= LIMIT, f"{PROMPTS} prompts with a common head of {len(HEAD)} bytes herded: {counts}"
