"""RTR-093."""

from __future__ import annotations

import random

from gaugeblock.conformance.check import check
from gaugeblock.conformance.engine.evidence import Note
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.conformance.router.pairs import one_pair, pair_lab
from gaugeblock.conformance.router.texts import unrelated

GROUPS, REPEATS = 12, 4


@check(
    "RTR-093",
    feature="pd",
    bound="exact on idle workers: the prefix is 99% of the prompt and load never argues against it; chance hits half",
    sources=("https://github.com/sgl-project/sglang/pull/23573",),
)
def test_rtr_093(router_lab: LabFactory, note: Note) -> None:
    """Cache-aware routing works for prefill workers: a prefix goes back to the one that has it.

    The policy was configured, and an empty tree answered: with prefill and decode apart it routed at random. Look at
    whether the prefill side's policy learns where prompts went.
    """
    lab = pair_lab(router_lab, "cache_aware")
    turns = unrelated(GROUPS, size=2000, seed=lab.mark()) * REPEATS
    random.Random(93).shuffle(turns)
    seen: dict[str, list[str]] = {}
    for text in turns:
        seen.setdefault(text, []).append(one_pair(lab, lab.send(text))[0].worker)
    missed = sum(workers[0] != worker for workers in seen.values() for worker in workers[1:])
    total = GROUPS * (REPEATS - 1)
    note(f"{total - missed} of {total} repeats hit; spread {lab.counts()}")
    assert not missed, f"{missed} of {total} repeats of a 2 kB prefix went to a prefill worker that has not cached it"
    used = {workers[0] for workers in seen.values()}
    assert len(used) > 1, f"all {GROUPS} unrelated prefixes went to {used}: there was nothing to judge"
