"""HYB-012."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.inprocess import InProcess

BAD = 17
SHARE = 4  # of the bad prompt every fourth position is another prompt's


@check(
    "HYB-012",
    feature="similarity",
    bound="one prompt of 24 with a quarter of its positions wrong: its mean falls below 0.95, the mean of all stays "
    "above it",
    sources=("https://github.com/vllm-project/vllm/issues/31210",),
)
def test_hyb_012(inprocess: InProcess, record_property: Callable[[str, object], None]) -> None:
    """One bad prompt among many is found, and named

    A mean over all prompts hides it: 23 good answers do not make the 24th right. The complaint must name the prompt
    and the position, and the place the tokens. Look at what is averaged.
    """
    from gaugeblock.conformance.hybrid.instruments import gate, held_out_rows
    from gaugeblock.conformance.similarity import compare, judge
    from gaugeblock.fixtures.targets.inprocess import held_out_prompts

    rows = held_out_rows(inprocess)
    prompts = held_out_prompts(inprocess.folder, len(rows[0]), len(rows))
    other = [row.copy() for row in rows]
    other[BAD][::SHARE] = rows[BAD - 1][::SHARE]
    similarity = compare(rows, other, prompts)
    assert similarity.overlap > 0.95, f"the mean of all prompts is {similarity.overlap:.3f}: the fault is too coarse"
    worst = similarity.worst_prompt
    mean = float(compare(rows[BAD : BAD + 1], other[BAD : BAD + 1]).overlap)
    assert (worst.prompt, round(worst.value, 9)) == (BAD, round(mean, 9)), (
        f"the worst prompt is said to be {worst.prompt} with {worst.value:.4f}; prompt {BAD} has a mean of {mean:.4f}"
    )
    complaint = judge(similarity, gate()).reasons
    assert f"prompt {BAD}, position {worst.position}" in complaint, f"no complaint names prompt {BAD}: {complaint!r}"
    assert worst.position % SHARE == 0, f"position {worst.position} of prompt {BAD} is right; every fourth is wrong"
    shown = tuple(prompts[BAD][: worst.position + 1])[-len(worst.context) :]
    assert worst.context == shown, f"the tokens {worst.context} are not those at the place, {shown}"
    best = (int(rows[BAD][worst.position].argmax()), int(other[BAD][worst.position].argmax()))
    assert worst.best == best, f"the preferred tokens are said to be {worst.best}, they are {best}"
    record_property("evidence", f"mean {similarity.overlap:.3f}, prompt {BAD} {worst.value:.3f}")
