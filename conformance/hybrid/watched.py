"""What the checks on the watch share: a right engine's positions, and endpoints made of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from gaugeblock.fixtures.similarity.measures import Floats
    from gaugeblock.fixtures.similarity.sequential import Limit
    from gaugeblock.fixtures.watch.reading import Draw, Reading
    from gaugeblock.fixtures.watch.rounds import Watcher

PROMPTS, POSITIONS = 24, 90
LENGTHS = (POSITIONS,) * PROMPTS
HARD = 3  # prompts on which a right engine errs four times as much: its low overlaps lie close together
ALPHA = 0.01


def right_engine(seed: int) -> Floats:
    """Return the overlaps of a right engine with the believed one, [prompts, positions]."""
    rng = np.random.default_rng(seed)
    widths = np.where(np.arange(PROMPTS) < HARD, 0.04, 0.01)[:, None]
    overlaps: Floats = 1 - (widths * rng.gamma(1.0, 1.0, (PROMPTS, POSITIONS))).clip(0, 1)
    return overlaps


def limits() -> tuple[Limit, ...]:
    """Return the limits of the null of one such engine."""
    from gaugeblock.fixtures.similarity.sequential import limits_of

    return limits_of([[right_engine(0).ravel()]])


def measured(overlaps: Floats) -> Callable[[Draw], Reading]:
    """Return an endpoint of which every overlap is known: [prompts, positions]."""
    from gaugeblock.fixtures.watch.reading import Reading

    values = overlaps.tolist()

    def measure(draw: Draw) -> Reading:
        value = values[draw.prompt][draw.position]
        return Reading(draw, value, value)

    return measure


def watcher(measure: Callable[[Draw], Reading], seed: int = 0, size: int = 48) -> Watcher:
    """Return a watcher of an endpoint."""
    from gaugeblock.fixtures.watch.rounds import Watcher

    return Watcher(measure, LENGTHS, limits(), ALPHA, size, seed)


def rounds_to_alarm(watcher: Watcher, most: int) -> int | None:
    """Return after how many rounds the alarm stands; None: not within ``most``."""
    return next((made.number for made in (watcher.round() for _ in range(most)) if made.alarm), None)
