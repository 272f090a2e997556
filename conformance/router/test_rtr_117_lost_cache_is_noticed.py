"""RTR-117."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.engine.evidence import Note
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.conformance.router.texts import unrelated
from gaugeblock.fixtures.targets.router import CHAT
from gaugeblock.fixtures.workers.script import HEALTHY, Answer
from gaugeblock.fixtures.workers.shapes import plain

PREFIXES, BURST, KEPT = 48, 8, 8


@check(
    "RTR-117",
    feature="cache-feedback",
    level="extended",
    bound="of some 16 prefixes after the first 8 mispredicted ones at least one goes elsewhere (all stay by chance "
    "with 2e-5); none does as long as the caches are there",
    sources=(
        "https://github.com/sgl-project/sglang/issues/23573",
        "https://github.com/sgl-project/sglang/issues/32195",
    ),
)
def test_rtr_117(router_lab: LabFactory, note: Note) -> None:
    """A worker that has lost its cache is not preferred for what it had.

    It was restarted or flushed, and the router goes on sending it the prompts of its past: all are computed again
    there while the others idle. Look at whether ``cached_tokens`` of the answers is compared with the prediction.
    One prompt sent by many at once is mispredicted too, and says nothing.
    """
    lab = router_lab("cache_aware", needs=("cache-feedback",), workers=2, fresh=True)
    prefixes = unrelated(PREFIXES, size=2000, seed=lab.mark())
    homes = {text: lab.send(text).worker for text in prefixes}
    counts = lab.counts()
    loser = max(lab.workers, key=lambda worker: counts[worker.name])
    mine = [text for text, home in homes.items() if home == loser.name]
    assert len(mine) < PREFIXES, f"{PREFIXES} unrelated prompts all went to one of 2 workers: {counts}"

    for worker in lab.workers:
        worker.always(lambda arrival: Answer(body=plain(CHAT, arrival.json(), "burst", 0)))
    lab.together(BURST, unrelated(1, size=2000, seed=lab.mark())[0])
    for worker in lab.workers:
        worker.always(HEALTHY)
    moved = [text[:16] for text, home in homes.items() if lab.send(text).worker != home]  # either had the burst
    assert not moved, f"after a burst of one new prompt {len(moved)} of {PREFIXES} others were forgotten"

    loser.lose_cache()
    stayed = [lab.send(text).worker == homes[text] for text in mine]
    note(f"{sum(stayed)} of {len(mine)} prompts went back to the worker that had lost them")
    assert not all(stayed[KEPT:]), (
        f"{len(mine)} of {len(mine)} prompts went back to a worker that had lost its cache and said so each time"
    )
