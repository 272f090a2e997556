"""Latency budgets: ratios to what the same run measured, bound to a card's name, and the verdict on each.

A ratio is taken round by round, ours against the ceiling or the baseline of the same round, so that a drift of the
clock cancels. Its value is the median of the rounds, its spread their range. What is noisier than the budget allows
is never met: it is missed where every round misses, else inconclusive.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal

Verdict = Literal["met", "missed", "inconclusive", "not judged"]

METRICS = {
    "r": "modelled bytes a second ÷ an in-run copy's",
    "gemm": "operations a second ÷ an in-run bf16 matrix product's",
    "times": "time ÷ the time of what it is held against",
    "traffic": "bytes that the interpreted kernel loads and stores ÷ the modelled ones",
}
BEST_PEER = "best peer"

CEILING = 1.05
"""A share of a ceiling above this is an error of the measurement: no clock and no ratio of reads to writes gives more
than a few percent over a copy of 2 GiB, or over a matrix product of 8192³."""


@dataclass(frozen=True)
class Term:
    """One side of a budget: a metric and the worst value allowed; ``against`` names what ``times`` divides by."""

    metric: str
    at_least: float | None = None
    at_most: float | None = None
    against: str = ""

    def holds(self, value: float) -> bool:
        """Whether a value is within the term."""
        return value >= self.at_least if self.at_least is not None else value <= (self.at_most or 0.0)

    def __str__(self) -> str:
        sign, number = ("≥", self.at_least) if self.at_least is not None else ("≤", self.at_most)
        what = {"r": "R", "gemm": "GEMM", "times": "×"}.get(self.metric, self.metric)
        return f"{what} {sign} {number:.4g}" + (f" of {self.against}" if self.against else "")


@dataclass(frozen=True)
class Budget:
    """What must hold (``gate``) and what to reach for (``goal``); ``noise``, the spread above which nothing is met."""

    gate: Term
    goal: Term | None
    noise: float
    source: str


@dataclass(frozen=True)
class Judged:
    """The verdict on one term: its value over the rounds, and the reason where there is none."""

    term: Term
    verdict: Verdict
    value: float | None
    spread: float | None
    against: str
    reason: str = ""


def judge(term: Term, noise: float, ratios: Sequence[float], against: str = "") -> Judged:
    """Judge a ratio that each round measured.

    Raises:
        ValueError: no rounds.
    """
    if not ratios:
        raise ValueError("nothing was measured")
    value = statistics.median(ratios)
    spread = (max(ratios) - min(ratios)) / value
    if spread > noise and any(term.holds(ratio) for ratio in ratios):
        reason = f"{spread:.1%} between rounds, {noise:.1%} allowed"
        return Judged(term, "inconclusive", value, spread, against, reason)
    return Judged(term, "met" if term.holds(value) else "missed", value, spread, against)


def load_budgets(card: str) -> dict[str, Budget]:
    """Return the budgets of a card by ``"op label"``; none for a card without."""
    return {name: _budget(entry) for name, entry in _file()["cards"].get(card, {}).items()}


def known_cards() -> list[str]:
    """Return the names of the cards that have budgets."""
    return list(_file()["cards"])


@cache
def _file() -> dict[str, Any]:
    text = resources.files("gaugeblock.golden").joinpath("budgets", "kernels.json").read_text(encoding="utf-8")
    data: dict[str, Any] = json.loads(text)
    return data


def _budget(entry: Mapping[str, Any]) -> Budget:
    goal = Term(**entry["goal"]) if "goal" in entry else None
    return Budget(Term(**entry["gate"]), goal, entry["noise"], entry["source"])
