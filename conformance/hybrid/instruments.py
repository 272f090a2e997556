"""What the checks on the measuring instrument share: distributions of the tiny model, and what is done to them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from gaugeblock.fixtures.similarity.calibration import Calibration
    from gaugeblock.fixtures.similarity.gates import Gate
    from gaugeblock.fixtures.similarity.measures import Floats, Positions
    from gaugeblock.fixtures.targets.inprocess import InProcess, Rows

PROMPTS = 24
LENGTH = 48
TAIL = 0.82
"""The tiny model's tail limit as in HYB-003; what is rejected here lies far below it, what passes far above."""


def held_out_rows(inprocess: InProcess, prompts: int = PROMPTS, length: int = LENGTH) -> list[Rows]:
    """Return log-probabilities [length, vocab] of fp32 over held-out prompts of equal length."""
    from gaugeblock.fixtures.targets.inprocess import held_out_prompts

    return [inprocess.one_shot(ids) for ids in held_out_prompts(inprocess.folder, length, prompts)]


def gate() -> Gate:
    """Return the statistical gate of these checks."""
    from gaugeblock.fixtures.similarity.gates import Gate

    return Gate(tail=TAIL)


def cosine(reference: Sequence[Rows], other: Sequence[Rows]) -> float:
    """Return the mean cosine of two engines' rows: the measure that is no measure."""
    p, q = np.concatenate(list(reference)), np.concatenate(list(other))  # [positions, vocab]
    norms = np.linalg.norm(p, axis=-1) * np.linalg.norm(q, axis=-1)
    return float(((p * q).sum(axis=-1) / norms).mean())


def noisy(rows: Sequence[Rows], sigma: float) -> list[Rows]:
    """Return rows with a little noise on every logit, as a right engine of lower precision has it."""
    generator = np.random.default_rng(0)
    return [row + generator.normal(scale=sigma, size=row.shape) for row in rows]


POSITIONS = 96
TOUCHY = 0.05
"""Share of positions at which rounding moves much: two tokens are even there."""
LUCK = 0.25
"""Standard deviation of a rounding's logarithm of how coarse it is."""


def costs() -> list[Floats]:
    """Return what rounding costs a made-up model at each position, on average, one array a prompt."""
    rng = np.random.default_rng(70)
    touchy = rng.random((PROMPTS, POSITIONS)) < TOUCHY
    return list(np.where(touchy, 0.12, 0.012) * rng.uniform(0.5, 1.5, touchy.shape))


def rounding(seed: int) -> list[Floats]:
    """Return the overlaps of one rounding of that model: by luck coarser or finer, and again at each position."""
    rng = np.random.default_rng(seed)
    luck = float(np.exp(rng.normal(0.0, LUCK)))
    return [1 - (luck * row * rng.gamma(4.0, 0.25, POSITIONS)).clip(0, 1) for row in costs()]


def null_of(seeds: Iterable[int]) -> Calibration:
    """Return a calibration with these roundings of it, as of INT8 weights."""
    from gaugeblock.fixtures.similarity.calibration import Calibration

    return Calibration({}, {}, {}, {"int8-weights": [rounding(seed) for seed in seeds]})


def seen(low: Floats, high: Floats | None = None) -> Positions:
    """Return one prompt's positions of which nothing is known but that their overlaps lie in [low, high]."""
    from gaugeblock.fixtures.similarity.measures import Positions

    nothing = np.zeros(len(low), dtype=bool)
    best = np.zeros((len(low), 2), dtype=np.int64)
    return Positions(low, low if high is None else high, low * 0, low * 0, ~nothing, nothing, best, nothing)
