"""HYB-011."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.inprocess import InProcess

PASSES = 0.95  # the cosine that a usual gate asks for


@check(
    "HYB-011",
    feature="similarity",
    bound="both limits of the statistical gate are missed by another prompt's output (overlap below 0.5, where 0.95 is "
    "asked for), and both are met by logits with noise of 0.01; the cosine of both is above 0.95",
    sources=(
        "https://github.com/kvcache-ai/ktransformers/issues/1880",
        "https://github.com/vllm-project/vllm/issues/31210",
    ),
)
def test_hyb_011(inprocess: InProcess, record_property: Callable[[str, object], None]) -> None:
    """The gate rejects another prompt's output, which a cosine of logits passes

    A shared offset dominates the cosine: it tells nothing. Look at what the judged number is made of.
    """
    from gaugeblock.conformance.hybrid.instruments import cosine, gate, held_out_rows, noisy
    from gaugeblock.conformance.similarity import compare, judge

    rows = held_out_rows(inprocess)
    foreign = rows[1:] + rows[:1]
    fooled = cosine(rows, foreign)
    assert fooled > PASSES, f"the cosine of another prompt's output is {fooled:.3f}: it would be rejected, show another"
    right = judge(compare(rows, noisy(rows, 0.01)), gate())
    assert right.outcome == "passed", f"the gate rejects logits with noise of 0.01: {right.reasons}"
    similarity = compare(rows, foreign)
    wrong = judge(similarity, gate())
    assert len(wrong.complaints) == 2, (
        f"the gate passes another prompt's output (worst prompt {similarity.worst_prompt}, first percentile "
        f"{similarity.tail}); the cosine of its logits is {fooled:.3f}"
    )
    assert similarity.overlap < 0.5, f"another prompt's output overlaps by {similarity.overlap:.3f}"
    record_property("evidence", f"another prompt: cosine {fooled:.3f}, overlap {similarity.overlap:.3f}")
