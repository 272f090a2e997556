"""What the checks on the measuring instrument share: distributions of the tiny model, and what is done to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from gaugeblock.fixtures.similarity.gates import Gate
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
