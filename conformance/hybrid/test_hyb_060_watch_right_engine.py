"""HYB-060."""

from __future__ import annotations

from collections.abc import Callable

from gaugeblock.conformance.check import check

ENGINES, ROUNDS = 25, 60


@check(
    "HYB-060",
    feature="watch",
    bound="of 25 right engines, each watched for 60 rounds of 48 positions, at most 2 are alarmed: α = 0.01 gives 0.25 "
    "at most, and 3 or more with a probability of 2e-3 at most (the seeds are fixed)",
    sources=("https://arxiv.org/abs/2010.09686",),
)
def test_hyb_060(record_property: Callable[[str, object], None]) -> None:
    """An endpoint that serves the right model is watched without an alarm

    Its low overlaps lie close together, on a few hard prompts: whoever visits positions in the order of prompts sees
    them in a row. Look at the order of the draws, and at what the capital is multiplied by.
    """
    from gaugeblock.conformance.hybrid.watched import measured, right_engine, rounds_to_alarm, watcher

    alarmed = [
        seed
        for seed in range(ENGINES)
        if rounds_to_alarm(watcher(measured(right_engine(1 + seed)), seed), ROUNDS) is not None
    ]
    assert len(alarmed) <= 2, f"{len(alarmed)} of {ENGINES} right engines are alarmed within {ROUNDS} rounds"
    record_property("evidence", f"{len(alarmed)} of {ENGINES} right engines alarmed in {ROUNDS} rounds each")
