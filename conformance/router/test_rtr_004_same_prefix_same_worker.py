"""RTR-004."""

from __future__ import annotations

import random

from gaugeblock.conformance.check import check
from gaugeblock.conformance.engine.evidence import Note
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.conformance.router.texts import unrelated

GROUPS, REPEATS = 8, 3


@check(
    "RTR-004",
    feature="cache-aware",
    bound="exact on idle workers: the prefix is 99% of the prompt and load never argues against it",
    sources=(
        "https://github.com/sgl-project/sglang/issues/23573",
        "https://github.com/sgl-project/sglang/issues/32195",
    ),
)
def test_rtr_004(router_lab: LabFactory, note: Note) -> None:
    """Prompts with a common prefix go to the worker that has it cached.

    Each miss recomputes the whole prefix. Look at what the policy takes for the prompt (messages, text or ids), and
    whether it learns where a request really went.
    """
    lab = router_lab("cache_aware")
    rng = random.Random(4)
    turns = unrelated(GROUPS, size=2000, seed=lab.mark()) * REPEATS
    rng.shuffle(turns)
    seen: dict[str, list[str]] = {}
    for text in turns:
        seen.setdefault(text, []).append(lab.send(text).worker)
    missed = sum(workers[0] != worker for workers in seen.values() for worker in workers[1:])
    total = GROUPS * (REPEATS - 1)
    note(f"{total - missed} of {total} repeats hit; spread {lab.counts()}")
    assert not missed, f"{missed} of {total} repeats of a 2 kB prefix went to a worker that has not cached it"
