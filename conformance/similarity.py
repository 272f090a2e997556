"""How alike two engines' next-token distributions are, and the gate on it.

The gate stands on the *overlap* Σ min(p, q), which is one minus the total variation distance. Mean logit cosine passes
a zeroed page, positions off by one, even another prompt's logits, because a shared offset dominates it; the overlap of
the worst prompt together with the overlap's first percentile separates right variants from every planted fault.

All arrays are [positions, vocab] logits or log-probabilities; computing is in float64. Needs numpy alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gaugeblock.fixtures.errors import KitError

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

PERCENTILE = 1.0
FLIP_MARGIN = 1.0  # nats


@dataclass(frozen=True)
class Place:
    """A value and where it was seen."""

    value: float
    prompt: int
    position: int


@dataclass(frozen=True)
class Similarity:
    """How alike ``other`` is to the reference over some prompts.

    ``worst_prompt`` is the lowest prompt mean of the overlap, with that prompt's worst position; ``tail`` the overlap's
    first percentile and ``lowest`` its minimum; ``kl_max`` in nats. ``top1`` and ``flips`` are shares of positions.
    """

    positions: int
    overlap: float
    worst_prompt: Place
    tail: Place
    lowest: Place
    kl_mean: float
    kl_max: Place
    top1: float
    flips: float

    def describe(self) -> dict[str, Any]:
        """Return the numbers as JSON, for a check's evidence."""
        return asdict(self)


@dataclass(frozen=True)
class Gate:
    """What passes: worst-prompt overlap above ``worst_prompt`` and first percentile above ``tail``.

    ``tail`` is calibrated per model: between known-good variants and the mildest fault.
    """

    tail: float
    worst_prompt: float = 0.95


def log_probabilities(logits: ArrayLike) -> Floats:
    """Return natural log-probabilities of logits (or of log-probabilities: then nothing changes) along the last axis.

    Raises:
        KitError: not [positions, vocab].
    """
    values = np.asarray(logits, dtype=np.float64)
    if values.ndim != 2 or not values.size:
        raise KitError(f"logits must be a non-empty [positions, vocab], got {values.shape}")
    with np.errstate(invalid="ignore", over="ignore"):  # rows that are not finite give NaN, which compare() counts
        shifted = values - values.max(axis=-1, keepdims=True)
        result: Floats = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def overlap(reference: ArrayLike, other: ArrayLike) -> Floats:
    """Return Σ min(p, q) [positions]: 1 for equal distributions, 0 for disjoint ones, and 0 where ``other`` is NaN."""
    p, q = _pair(reference, other)
    shared: Floats = np.nan_to_num(np.minimum(np.exp(p), np.exp(q)).sum(axis=-1), nan=0.0)
    return shared


def kl(reference: ArrayLike, other: ArrayLike) -> Floats:
    """Return KL(reference ‖ other) [positions] in nats: infinite where ``other`` rules out a token or is NaN."""
    p, q = _pair(reference, other)
    with np.errstate(invalid="ignore"):
        terms = np.where(np.isneginf(p), 0.0, np.exp(p) * (p - q))  # 0 · log 0 = 0
    divergence: Floats = np.nan_to_num(terms.sum(axis=-1), nan=np.inf, posinf=np.inf)
    return divergence


def top1(reference: ArrayLike, other: ArrayLike) -> Bools:
    """Tell per position whether both prefer the same token [positions]."""
    p, q = _pair(reference, other)
    same: Bools = (p.argmax(axis=-1) == q.argmax(axis=-1)) & ~np.isnan(q).any(axis=-1)
    return same


def flips(reference: ArrayLike, other: ArrayLike, margin: float = FLIP_MARGIN) -> Bools:
    """Tell per position whether the best token changed although the reference's led by more than ``margin`` nats."""
    p, _ = _pair(reference, other)
    best = np.partition(p, -2, axis=-1)[:, -2:]  # [positions, 2], ascending
    flipped: Bools = ~top1(reference, other) & (best[:, 1] - best[:, 0] > margin)
    return flipped


def compare(reference: Sequence[ArrayLike], other: Sequence[ArrayLike]) -> Similarity:
    """Compare two engines, one array a prompt.

    Raises:
        KitError: no prompts, different shapes, a vocabulary of one, or a reference that is not a distribution.
    """
    if not reference or len(reference) != len(other):
        raise KitError(f"{len(reference)} prompts against {len(other)}: give the same, at least one")
    pairs = list(zip(reference, other, strict=True))
    overlaps = [overlap(*pair) for pair in pairs]
    divergences = [kl(*pair) for pair in pairs]
    means = [float(row.mean()) for row in overlaps]
    worst = int(np.argmin(means))
    flat = np.concatenate(overlaps)
    order = np.argsort(flat, kind="stable")
    return Similarity(
        positions=len(flat),
        overlap=float(flat.mean()),
        worst_prompt=Place(means[worst], worst, int(overlaps[worst].argmin())),
        tail=_place(overlaps, int(order[int(PERCENTILE / 100 * (len(flat) - 1))])),
        lowest=_place(overlaps, int(order[0])),
        kl_mean=float(np.concatenate(divergences).mean()),
        kl_max=_place(divergences, int(np.concatenate(divergences).argmax())),
        top1=float(np.concatenate([top1(*pair) for pair in pairs]).mean()),
        flips=float(np.concatenate([flips(*pair) for pair in pairs]).mean()),
    )


def complaints(similarity: Similarity, gate: Gate) -> list[str]:
    """Return what the gate holds against a similarity, each with its prompt and position; empty for a pass."""
    found = []
    worst, tail = similarity.worst_prompt, similarity.tail
    if not worst.value > gate.worst_prompt:
        found.append(
            f"worst-prompt overlap {worst.value:.4f} is not above {gate.worst_prompt} "
            f"(prompt {worst.prompt}, worst at position {worst.position})"
        )
    if not tail.value > gate.tail:
        found.append(
            f"first-percentile overlap {tail.value:.4f} is not above {gate.tail} "
            f"(prompt {tail.prompt}, position {tail.position})"
        )
    return found


def _pair(reference: ArrayLike, other: ArrayLike) -> tuple[Floats, Floats]:
    p, q = log_probabilities(reference), log_probabilities(other)
    if p.shape != q.shape or p.shape[1] < 2:
        raise KitError(f"shapes {p.shape} and {q.shape}: give the same positions and vocabulary, at least two tokens")
    if np.isnan(p).any():
        raise KitError("the reference has rows that are no distribution (NaN, +inf, or -inf everywhere)")
    return p, q


def _place(rows: Sequence[Floats], index: int) -> Place:
    """Return the value at a flat index over all prompts, with its prompt and position."""
    for prompt, row in enumerate(rows):
        if index < len(row):
            return Place(float(row[index]), prompt, index)
        index -= len(row)
    raise IndexError(index)
