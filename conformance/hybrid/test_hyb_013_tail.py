"""HYB-013."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.inprocess import InProcess

EVERY = 40  # one position in forty is another prompt's: 2.5%


@check(
    "HYB-013",
    feature="similarity",
    bound="2.5% of the positions wrong, one or two a prompt: every prompt's mean stays above 0.95, and the first "
    "percentile lies among the wrong ones",
    sources=("https://github.com/pytorch/pytorch/issues/103646", "https://github.com/vllm-project/vllm/issues/49328"),
)
def test_hyb_013(inprocess: InProcess, record_property: Callable[[str, object], None]) -> None:
    """A few wrong positions, spread over all prompts, are found by the tail

    Positions off by one keep a mean of .98: the tail sees them, no mean does. Look at what the percentile is taken
    over: positions, not prompts.
    """
    import numpy as np

    from gaugeblock.conformance.hybrid.instruments import gate, held_out_rows
    from gaugeblock.conformance.similarity import compare, judge, overlap

    rows = held_out_rows(inprocess)
    wrong = [[p for p in range(len(row)) if (i * len(row) + p) % EVERY == 7] for i, row in enumerate(rows)]
    other = [row.copy() for row in rows]
    for i, places in enumerate(wrong):
        other[i][places] = rows[i - 1][places]
    similarity = compare(rows, other)
    assert similarity.worst_prompt.value > 0.95, f"{similarity.worst_prompt} of a prompt: the fault is too coarse"
    sorted_ = np.sort(np.concatenate([overlap(*pair) for pair in zip(rows, other, strict=True)]))
    wanted = float(sorted_[(len(sorted_) - 1) // 100])
    tail = similarity.tail
    assert tail.value == wanted, f"the first percentile of {len(sorted_)} positions is {wanted:.4f}, not {tail}"
    assert tail.position in wrong[tail.prompt], f"the tail is said to lie at a right position: {tail.where}"
    complaints = judge(similarity, gate()).complaints
    assert len(complaints) == 1, f"the gate's complaints are {complaints}: the tail's alone is right"
    assert complaints[0].startswith("first-percentile"), complaints[0]
    record_property("evidence", f"worst prompt {similarity.worst_prompt}, first percentile {tail}")
