"""HYB-063."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.fixtures.similarity.truncated import Known

ROUNDS, SIZE = 6, 20
VOCAB = 12


@check(
    "HYB-063",
    feature="watch",
    bound="exact: an alarm by the upper end of the overlap alone; undecided when the lower end has alarmed and the "
    "upper has not",
    sources=("https://github.com/vllm-project/vllm/issues/9490",),
)
def test_hyb_063(record_property: Callable[[str, object], None]) -> None:
    """What an endpoint's top candidates leave out is evidence neither against it nor for it

    An equal engine seen through two candidates of a flat distribution is not alarmed, and not called right; through all
    of them it is right; and one that prefers other tokens is alarmed through two already. Look at which end of the
    interval each of the two tests takes.
    """
    import numpy as np

    from gaugeblock.conformance.hybrid.watched import watcher
    from gaugeblock.fixtures.similarity.truncated import known_rows
    from gaugeblock.fixtures.watch.asked import Against, Answer
    from gaugeblock.fixtures.watch.hold import Pace, hold
    from gaugeblock.fixtures.watch.reading import Draw

    flat = np.log(np.full((1, VOCAB), 1 / VOCAB))
    peaked = np.log(np.array([[0.45, 0.45, *[0.1 / (VOCAB - 2)] * (VOCAB - 2)]]))
    cases = {
        "an equal engine": (flat, flat, {2: "inconclusive", VOCAB: "passed"}),
        "another engine": (peaked, peaked[:, ::-1], {2: "regressed", VOCAB: "regressed"}),
    }

    def row(logprobs: np.ndarray, top: int) -> Callable[[Draw], Known]:
        told = known_rows(logprobs, top)[0]
        return lambda draw: told

    shown = []
    for name, (believed, other, wanted) in cases.items():
        for top, ending in wanted.items():
            told = Answer(row(other, top)(Draw(0, 0)))
            watch = watcher(Against(lambda draw, told=told: told, row(believed, top)), size=SIZE)  # type: ignore[misc]
            found = hold(watch, Pace(60, 300, rounds=ROUNDS), lambda made: None, lambda: 0.0, lambda seconds: None)
            assert found == ending, (
                f"{name}, seen through {top} of {VOCAB} candidates, is {found} after {watch.certain.positions} "
                f"positions, not {ending}: to the alarm {watch.certain.share:.2f} by what is certain, "
                f"{watch.possible.share:.2f} by what is open"
            )
            shown.append(f"{name} by {top}: {found}")
    record_property("evidence", ", ".join(shown))
