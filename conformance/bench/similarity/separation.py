"""Does the gate tell right variants from faults? Each is judged by a null that never saw it.

A right variant of the model itself is judged by the null of all other roundings, and must pass; a fault by the whole
null, and must fail.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from gaugeblock.fixtures.similarity.calibration import Calibration
from gaugeblock.fixtures.similarity.false_alarms import ROUNDS, Held, interval, missed, statistics, watched
from gaugeblock.fixtures.similarity.gates import GATES, Judgement, judge
from gaugeblock.fixtures.similarity.measure_null import Bench
from gaugeblock.fixtures.similarity.measures import Positions
from gaugeblock.fixtures.similarity.prediction import ROUNDINGS
from gaugeblock.fixtures.similarity.sequential import positions_needed
from gaugeblock.fixtures.similarity.summary import Similarity, summarise
from gaugeblock.fixtures.similarity.usual import relative, spread
from gaugeblock.fixtures.similarity.variants import RIGHT
from gaugeblock.fixtures.similarity.wrong import WRONG, foreign

STATISTIC = GATES["int8"]  # the widest: it allows for every right variant of the table
EXACT = GATES["fp32"]
ORDERS = 20  # random orders in which the positions are visited
COSINE = 0.95

Say = Callable[[str], None]


@dataclass(frozen=True)
class Row:
    """One variant. ``judged``: the statistical gate's word; ``exact``: the fp32 gate's.

    ``needed``: positions after which the sequential test speaks, the median and the most over random orders; None: in
    at least one order it never does. ``rounds``: the same in rounds of ``gaugeblock watch``, which draws from them for
    as long as it takes.
    """

    name: str
    right: bool
    similarity: Similarity
    cosine: float
    exact: Judgement
    judged: Judgement
    needed: tuple[int, int] | None
    rounds: tuple[int, int] | None

    @property
    def told(self) -> bool:
        """Whether it is told for what it is."""
        return self.judged.outcome == ("passed" if self.right else "failed")


@dataclass(frozen=True)
class FalseAlarms:
    """Roundings of right variants, each judged by the null of all others; a 95% Clopper-Pearson interval.

    The nulls overlap, so the interval is that of as many independent comparisons would be.
    """

    comparisons: int
    alarms: int
    low: float
    high: float
    by_variant: Mapping[str, int]


Compared = Mapping[str, list[Positions]]


def measure(bench: Bench, say: Say = lambda line: None) -> tuple[dict[str, list[Positions]], dict[str, float]]:
    """Run every variant and fault; return its positions prompt by prompt, and the mean cosine of its logits."""
    compared: dict[str, list[Positions]] = {}
    cosines: dict[str, float] = {}
    for name in (*RIGHT, *WRONG):
        rows = _rows(bench, name)
        compared[name] = bench.compare(rows)
        cosines[name] = _cosine(bench.rows, rows)
        say(f"{name}: worst prompt {min(float(prompt.low.mean()) for prompt in compared[name]):.4f}")
    return compared, cosines


def _rows(bench: Bench, name: str) -> list[Tensor]:
    if name in RIGHT:
        return bench.run(RIGHT[name](bench.model))
    make = WRONG[name].make
    if make is None:
        return [foreign(bench.rows, number) for number in range(len(bench.rows))]
    return bench.run(make(bench.model))


def _cosine(reference: Sequence[Tensor], other: Sequence[Tensor]) -> float:
    values = [torch.cosine_similarity(p, q, dim=-1) for p, q in zip(reference, other, strict=True)]
    return float(torch.cat(values).mean())


def separate(
    compared: Compared,
    cosines: Mapping[str, float],
    null: Calibration,
    tokens: Sequence[Sequence[int]],
    say: Say = lambda line: None,
) -> list[Row]:
    """Judge every variant."""
    whole = Held(null.gate(STATISTIC), null.limits(STATISTIC))
    rows = []
    for name, prompts in compared.items():
        gate = without(null, name, 0).gate(STATISTIC) if name in RIGHT else whole.gate
        similarity = summarise(prompts, tokens, gate.usual)
        needed, rounds = (None, None) if name in RIGHT else (_needed(prompts, whole), _rounds(prompts, whole))
        exact = judge(similarity, EXACT)
        rows.append(Row(name, name in RIGHT, similarity, cosines[name], exact, judge(similarity, gate), needed, rounds))
        say(f"{name}: {'told' if rows[-1].told else 'NOT TOLD'}")
    return rows


def without(null: Calibration, name: str, number: int) -> Calibration:
    """Return the null that has not seen one rounding of a variant; one that is not rounded is left out whole."""
    rest = [rounding for i, rounding in enumerate(null.overlaps[name]) if i != number]
    overlaps = {**null.overlaps, name: rest}
    return replace(null, overlaps={key: roundings for key, roundings in overlaps.items() if roundings})


def _needed(prompts: Sequence[Positions], held: Held) -> tuple[int, int] | None:
    overlaps = np.concatenate(relative([prompt.low for prompt in prompts], held.gate.usual))
    orders = (np.random.default_rng(seed).permutation(overlaps) for seed in range(ORDERS))
    return _median_and_most([positions_needed(order, held.limits) for order in orders])


def _rounds(prompts: Sequence[Positions], held: Held) -> tuple[int, int] | None:
    overlaps = [prompt.low for prompt in prompts]
    return _median_and_most([watched(overlaps, held, seed, ROUNDS) for seed in range(ORDERS)])


def _median_and_most(found: Sequence[int | None]) -> tuple[int, int] | None:
    whole = sorted(count for count in found if count is not None)
    return (whole[len(whole) // 2], whole[-1]) if len(whole) == len(found) else None


def false_alarms(null: Calibration, most: int = ROUNDINGS) -> FalseAlarms:
    """Judge up to ``most`` roundings of each right variant that is rounded by the null of all others."""
    by_variant: dict[str, int] = {}
    total = 0
    for name in spread(null.overlaps):
        judged = null.overlaps[name][:most]
        gates = [without(null, name, number).gate(STATISTIC) for number in range(len(judged))]
        found = [missed(statistics(overlaps, gate.usual), gate) for overlaps, gate in zip(judged, gates, strict=True)]
        by_variant[name] = sum(map(bool, found))
        total += len(judged)
    alarms = sum(by_variant.values())
    low, high = interval(alarms, total)
    return FalseAlarms(total, alarms, low, math.ceil(high * 1e6) / 1e6, by_variant)
