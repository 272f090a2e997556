"""HYB-068."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.inprocess import InProcess

PROMPTS, LENGTH = 16, 96
MARGIN = 1.0  # nats


@check(
    "HYB-068",
    feature="int8",
    bound="exact: none. INT8 moves a log-probability near the top by some tenths of a nat, so a token that leads by "
    "more than 1 nat keeps its place: none of 1,605 such positions changes on the tiny model",
    sources=(
        "https://github.com/inclusionAI/Ling/issues/26",
        "https://github.com/pytorch/pytorch/issues/103646",
    ),
)
def test_hyb_068(inprocess: InProcess, int8_recipe: InProcess, record_property: Callable[[str, object], None]) -> None:
    """Where fp32 is sure of a token, INT8 prefers the same one

    One wrong token in two hundred spoils every longer answer, and no mean shows it. Look at which rows they are: in a
    text, in a batch, in a tile.
    """
    import numpy as np

    from gaugeblock.conformance.similarity import flips
    from gaugeblock.fixtures.targets.inprocess import held_out_prompts

    sure, moved = 0, []
    for number, ids in enumerate(held_out_prompts(inprocess.folder, LENGTH, PROMPTS)):
        reference, other = inprocess.one_shot(ids), int8_recipe.one_shot(ids)
        best = np.sort(reference, axis=-1)[:, -2:]
        sure += int((best[:, 1] - best[:, 0] > MARGIN).sum())
        changed = np.flatnonzero(flips(reference, other, MARGIN))
        moved += [
            f"prompt {number}, position {place}: {other[place].argmax()} for {reference[place].argmax()}"
            for place in changed
        ]
    assert sure > 500, f"fp32 is sure of {sure} tokens alone: too few to show anything"
    assert not moved, (
        f"{len(moved)} of {sure} tokens that lead by more than {MARGIN:g} nat lose their place in INT8: "
        f"{'; '.join(moved[:3])}"
    )
    record_property("evidence", f"none of {sure} tokens that lead by more than {MARGIN:g} nat loses its place")
