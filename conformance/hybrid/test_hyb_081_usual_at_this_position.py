"""HYB-081."""

from __future__ import annotations

from collections.abc import Callable

from gaugeblock.conformance.check import check

ROUNDINGS = 8
EVERY = 150
OVERLAP = 0.75


@check(
    "HYB-081",
    feature="similarity",
    bound=f"one position in {EVERY}, of those that rounding hardly moves, overlaps by {OVERLAP}, as positions that it "
    "moves much do: no limit of the tail is missed, and the one on how far off positions usually are is",
    sources=("https://github.com/huggingface/transformers/issues/46741",),
)
def test_hyb_081(record_property: Callable[[str, object], None]) -> None:
    """Each position is held to what rounding usually does there

    Where two tokens are even, rounding moves much, and a fault that strikes elsewhere hides behind such positions.
    Positions off by one do so on SmolLM2. Look at what a position's distance is divided by.
    """
    import numpy as np

    from gaugeblock.conformance.hybrid.instruments import costs, null_of, rounding, seen
    from gaugeblock.conformance.similarity import GATES, judge
    from gaugeblock.fixtures.similarity.false_alarms import missed, statistics
    from gaugeblock.fixtures.similarity.summary import summarise

    gate = null_of(range(ROUNDINGS)).gate(GATES["int8"])
    right = rounding(100)
    assert missed(statistics(right, gate.usual), gate) == (), "a right engine is called wrong"
    calm = np.flatnonzero(np.concatenate(costs()) < 0.02)[::EVERY]
    flat = np.concatenate(right)
    flat[calm] = OVERLAP
    wrong = np.split(flat, np.cumsum([len(row) for row in right])[:-1])
    found = statistics(wrong, gate.usual)
    said = missed(found, gate)
    assert said == ("times as far off as usual",), f"{len(calm)} calm positions overlap by {OVERLAP}; missed: {said}"
    for rows, right_word in ((right, "passed"), (wrong, "failed")):
        said_word = judge(summarise([seen(row) for row in rows], usual=gate.usual), gate).outcome
        assert said_word == right_word, f"the gate says {said_word} of an engine that it should call {right_word}"
    record_property("evidence", f"{found[said[0]]:.1f} {said[0]}, the limit is {gate.excess:.1f}")
