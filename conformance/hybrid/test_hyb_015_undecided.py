"""HYB-015."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.inprocess import InProcess

FEW, MANY = 2, 320  # candidates: the tiny model's vocabulary has 320 entries


@check(
    "HYB-015",
    feature="similarity",
    bound="exact: passed only when the lower bound is above the limit, failed only when the upper bound is not",
    sources=("https://github.com/vllm-project/vllm/issues/9490",),
)
def test_hyb_015(inprocess: InProcess, record_property: Callable[[str, object], None]) -> None:
    """What top candidates cannot decide is left undecided, and so is a tail without a calibration

    A right engine seen through two candidates neither passes nor fails; through all it passes; and another prompt's
    output fails through two already. Look at the side of the interval that is held to the limit.
    """
    from dataclasses import replace

    from gaugeblock.conformance.hybrid.instruments import gate, held_out_rows, noisy
    from gaugeblock.conformance.similarity import GATES, judge, known_rows, log_probabilities, summarise, truncated

    rows = held_out_rows(inprocess, prompts=6)
    right = [log_probabilities(row) for row in noisy(rows, 0.01)]
    foreign = rows[1:] + rows[:1]
    said = {}
    for name, other in (("a right engine", right), ("another prompt's output", foreign)):
        for top in (FEW, MANY):
            pairs = [(known_rows(p, top), known_rows(q, top)) for p, q in zip(rows, other, strict=True)]
            said[name, top] = judge(summarise([truncated(*pair) for pair in pairs]), gate())
    wanted = {
        ("a right engine", FEW): "inconclusive",
        ("a right engine", MANY): "passed",
        ("another prompt's output", FEW): "failed",
        ("another prompt's output", MANY): "failed",
    }
    for (name, top), outcome in wanted.items():
        found = said[name, top]
        assert found.outcome == outcome, f"{name}, seen through {top} candidates, is {found.outcome}: {found.reasons}"
    whole = summarise([truncated(known_rows(p, MANY), known_rows(q, MANY)) for p, q in zip(rows, right, strict=True)])
    for name in ("bf16", "int8"):
        found = judge(whole, GATES[name])
        assert found.outcome == "inconclusive", f"the gate {name} without a calibration says {found.outcome}"
        assert judge(whole, replace(GATES[name], tail=0.5)).outcome == "passed", f"the gate {name} passes nothing"
    record_property("evidence", said["a right engine", FEW].reasons)
