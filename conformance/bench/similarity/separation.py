"""Does the gate tell right variants from faults? Each is judged by a null that never saw the prompts it is judged on.

The prompts are dealt into two halves. A null of all right variants is measured on one half, every variant is judged on
the other, and the other way round: a right variant must pass both times, and a fault fail both times.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gaugeblock.fixtures.similarity.calibration import Calibration
from gaugeblock.fixtures.similarity.false_alarms import ROUNDS, watched
from gaugeblock.fixtures.similarity.gates import GATES, Gate, Judgement, judge
from gaugeblock.fixtures.similarity.measure_null import Bench
from gaugeblock.fixtures.similarity.measures import Positions
from gaugeblock.fixtures.similarity.sequential import lower_rate, positions_needed, upper_rate
from gaugeblock.fixtures.similarity.summary import Similarity, summarise
from gaugeblock.fixtures.similarity.variants import RIGHT
from gaugeblock.fixtures.similarity.wrong import WRONG, foreign

STATISTIC = GATES["int8"]  # the widest: it allows for every right variant of the table
EXACT = GATES["fp32"]
ORDERS = 20  # random orders in which the positions are visited
SPLITS = 40  # random halves on which each right variant is judged
COSINE = 0.95

Say = Callable[[str], None]


@dataclass(frozen=True)
class Row:
    """One variant. ``folds``: the statistical gate's word on each half; ``exact``: the fp32 gate's.

    ``needed``: positions after which the sequential test speaks, the median and the most over random orders; None: in
    at least one order it never does. ``rounds``: the same in rounds of ``gaugeblock watch``, which draws from them for
    as long as it takes.
    """

    name: str
    right: bool
    similarity: Similarity
    cosine: float
    exact: Judgement
    folds: tuple[Judgement, Judgement]
    needed: tuple[int, int] | None
    rounds: tuple[int, int] | None

    @property
    def passes(self) -> bool:
        """Whether both halves pass."""
        return all(fold.outcome == "passed" for fold in self.folds)

    @property
    def fails(self) -> bool:
        """Whether both halves fail."""
        return all(fold.outcome == "failed" for fold in self.folds)

    @property
    def told(self) -> bool:
        """Whether it is told for what it is."""
        return self.passes if self.right else self.fails


@dataclass(frozen=True)
class FalseAlarms:
    """Right variants judged on halves of the prompts by nulls of the other halves; a 95% Clopper-Pearson interval.

    The halves overlap from split to split, so the interval is that of as many independent comparisons would be.
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
    compared: Compared, cosines: Mapping[str, float], tokens: Sequence[Sequence[int]], say: Say = lambda line: None
) -> list[Row]:
    """Judge every variant on both halves."""
    count = len(tokens)
    halves = (list(range(0, count, 2)), list(range(1, count, 2)))
    nulls = [null_of(compared, half) for half in halves]
    gates = [null.gate(STATISTIC) for null in nulls]
    rows = []
    for name, prompts in compared.items():
        first = judge_on(prompts, halves[0], gates[1])
        second = judge_on(prompts, halves[1], gates[0])
        similarity = summarise(prompts, tokens)
        null = null_of(compared, range(count))
        needed, rounds = (None, None) if name in RIGHT else (_needed(prompts, null), _rounds(prompts, null))
        exact = judge(similarity, EXACT)
        rows.append(Row(name, name in RIGHT, similarity, cosines[name], exact, (first, second), needed, rounds))
        say(f"{name}: {'told' if rows[-1].told else 'NOT TOLD'}")
    return rows


def null_of(compared: Compared, prompts: Sequence[int] | range) -> Calibration:
    """Return the null of the right variants on some prompts."""
    overlaps = {name: [compared[name][i].low for i in prompts] for name in RIGHT}
    return Calibration({"digest": "", "name": ""}, {"digest": ""}, {}, overlaps)


def judge_on(prompts: Sequence[Positions], chosen: Sequence[int], gate: Gate) -> Judgement:
    """Judge one variant on some prompts."""
    return judge(summarise([prompts[i] for i in chosen]), gate)


def _needed(prompts: Sequence[Positions], null: Calibration) -> tuple[int, int] | None:
    overlaps, limits = np.concatenate([prompt.low for prompt in prompts]), null.limits(STATISTIC)
    found = [positions_needed(np.random.default_rng(seed).permutation(overlaps), limits) for seed in range(ORDERS)]
    return _median_and_most(found)


def _rounds(prompts: Sequence[Positions], null: Calibration) -> tuple[int, int] | None:
    overlaps, limits = [prompt.low for prompt in prompts], null.limits(STATISTIC)
    return _median_and_most([watched(overlaps, limits, seed, ROUNDS) for seed in range(ORDERS)])


def _median_and_most(found: Sequence[int | None]) -> tuple[int, int] | None:
    whole = sorted(count for count in found if count is not None)
    return (whole[len(whole) // 2], whole[-1]) if len(whole) == len(found) else None


def false_alarms(compared: Compared, splits: int = SPLITS) -> FalseAlarms:
    """Judge each right variant but the A/A run on random halves of the prompts, by the null of the other half."""
    names = [name for name in RIGHT if name != "fp32-again"]
    count = len(compared[names[0]])
    by_variant = dict.fromkeys(names, 0)
    for seed in range(splits):
        order = np.random.default_rng(seed).permutation(count).tolist()
        gate = null_of(compared, order[: count // 2]).gate(STATISTIC)
        for name in names:
            by_variant[name] += judge_on(compared[name], order[count // 2 :], gate).outcome != "passed"
    total, alarms = splits * len(names), sum(by_variant.values())
    low, high = (bound(alarms, total, 0.975) for bound in (lower_rate, upper_rate))
    return FalseAlarms(total, alarms, low, math.ceil(high * 1e6) / 1e6, by_variant)
