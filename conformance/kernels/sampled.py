"""Rows to sample from again and again, and what a right sampler draws of them, whoever's random numbers it uses."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from gaugeblock.conformance.outcome import unsupported
from gaugeblock.fixtures.targets.kernels import KernelTarget
from gaugeblock.kernels.contract import Case, Op
from gaugeblock.kernels.sampling import kept_set

MISSED = 1e-9
"""The probability that a right sampler with random numbers of its own misses a kept token of any row of a check."""


@dataclass(frozen=True)
class Row:
    """Probabilities fp32 ``[vocab]`` and their filters.

    ``slack``: how far an fp32 sum may be off; tokens whose place depends on less may be kept or not.
    """

    name: str
    probs: torch.Tensor
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    slack: float = 0.0

    def kept(self, slack: float) -> torch.Tensor:
        """Return which tokens are kept, bool ``[vocab]``, where each sum may be ``slack`` too small."""
        k, p, least = (torch.tensor([value]) for value in (self.top_k, self.top_p, self.min_p))
        return kept_set(self.probs[None].double(), k, p, least, slack)[0]

    def case(self, uniform: torch.Tensor) -> Case:
        """Return the case that draws from this row once for each of ``uniform``."""
        n = len(uniform)
        inputs = {
            "probs": self.probs.expand(n, -1).contiguous(),
            "top_k": torch.full((n,), self.top_k, dtype=torch.int32),
            "top_p": torch.full((n,), self.top_p),
            "min_p": torch.full((n,), self.min_p),
            "uniform": uniform,
        }
        return Case(f"sampling {self.name}", torch.float32, inputs)


def offered(kernels: KernelTarget, op: Op, rows: list[Row]) -> list[Row]:
    """Return the rows whose filters the target offers; the check is unsupported where it offers none of them."""
    reasons = {row.name: kernels.unclaimed(op, row.case(torch.zeros(1))) for row in rows}
    chosen = [row for row in rows if not reasons[row.name]]
    if not chosen:
        unsupported(f"{kernels.name}: {'; '.join(dict.fromkeys(reasons.values()))}")
    return chosen


def together(rows: list[Row], uniform: torch.Tensor) -> Case:
    """Return one case that draws from each row, all of one vocabulary, once for each of ``uniform``."""
    cases = [row.case(uniform) for row in rows]
    inputs = {name: torch.cat([case.inputs[name] for case in cases]) for name in cases[0].inputs}
    return Case(f"sampling {len(rows)} rows, {len(uniform)} times", torch.float32, inputs)


def draws_needed(rows: list[Row]) -> int:
    """Return how often to draw from each row, so that every kept token of every row comes up.

    Random numbers miss a token of share q in n draws with probability (1 − q)ⁿ; summed over all kept tokens of all rows
    that is below :data:`MISSED`.
    """
    shares = torch.cat([_shares(row)[row.kept(-row.slack)] for row in rows])
    smallest = shares.min().item()
    return math.ceil(math.log(len(shares) / MISSED) / -math.log1p(-smallest)) if smallest < 1 else 1


def uniforms(kernels: KernelTarget, op: Op, rows: list[Row]) -> torch.Tensor:
    """Return numbers in [0, 1) that reach every kept token of every row; for own random numbers only as many."""
    if kernels.own_randomness(op):
        return torch.zeros(draws_needed(rows))
    smallest = min(_shares(row)[row.kept(-row.slack)].min().item() for row in rows)
    steps = 1 << math.ceil(math.log2(4 / smallest))  # four to the narrowest token, so that narrower intruders show
    return torch.arange(steps) / steps


def _shares(row: Row) -> torch.Tensor:
    """Return each token's probability among the kept ones, float64 ``[vocab]``."""
    mass: torch.Tensor = row.probs.double() * row.kept(row.slack)
    shares: torch.Tensor = mass / mass.sum()
    return shares


def require_kept(row: Row, tokens: torch.Tensor) -> None:
    """Assert that only kept tokens were drawn, and all of them."""
    require_inside(row, tokens)
    drawn = torch.zeros(len(row.probs), dtype=torch.bool)
    drawn[tokens] = True
    may, must = row.kept(row.slack), row.kept(-row.slack)
    filters = f"top_k {row.top_k}, top_p {row.top_p:g}, min_p {row.min_p:g}"
    extra, missed = (drawn & ~may).nonzero()[:, 0].tolist(), (must & ~drawn).nonzero()[:, 0].tolist()
    assert not extra, (
        f"{row.name} ({filters}): drew {_with_probs(row, extra)}, outside the kept set {_with_probs(row, _ids(may))}"
    )
    assert not missed, (
        f"{row.name} ({filters}): never drew {_with_probs(row, missed)} of the kept set {_with_probs(row, _ids(must))} "
        f"in {len(tokens)} draws"
    )


def require_inside(row: Row, tokens: torch.Tensor) -> None:
    """Assert that all ids are of the vocabulary."""
    inside = (tokens >= 0) & (tokens < len(row.probs))
    assert inside.all(), f"{row.name}: id {tokens[~inside][0].item()} is outside the vocabulary of {len(row.probs)}"


def _ids(chosen: torch.Tensor) -> list[int]:
    return [int(i) for i in chosen.nonzero()[:, 0]]


def _with_probs(row: Row, ids: list[int]) -> str:
    shown = ", ".join(f"{i} (p {row.probs[i].item():.4g})" for i in ids[:5])
    return shown + (f" and {len(ids) - 5} more" if len(ids) > 5 else "")


@dataclass(frozen=True)
class ChiSquared:
    """A χ² statistic, its degrees of freedom, the chance of one as large, and the bin that adds most to it."""

    statistic: float
    freedom: int
    chance: float
    worst_ids: str
    worst_count: float
    worst_expected: float


def chi_squared(row: Row, tokens: torch.Tensor, most_bins: int) -> ChiSquared:
    """Compare counts with the row's own probabilities, in runs of ids of about equal mass, at least 10 draws each."""
    share = _shares(row)
    draws = len(tokens)
    least = max(draws / most_bins, 10.0)
    counts = torch.bincount(tokens, minlength=len(share)).double()
    bins = _runs(share * draws, least)
    size = int(bins[-1]) + 1
    expected = torch.zeros(size, dtype=torch.float64).index_add_(0, bins, share * draws)
    counted = torch.zeros(size, dtype=torch.float64).index_add_(0, bins, counts)
    terms = (counted - expected) ** 2 / expected
    statistic, worst = terms.sum(), int(terms.argmax())
    ids = (bins == worst).nonzero()[:, 0]
    return ChiSquared(
        statistic.item(),
        size - 1,
        torch.special.gammaincc(torch.tensor((size - 1) / 2, dtype=torch.float64), statistic / 2).item(),
        f"{ids[0].item()}…{ids[-1].item()}",
        counted[worst].item(),
        expected[worst].item(),
    )


def _runs(expected: torch.Tensor, least: float) -> torch.Tensor:
    """Return the number of the run that each id belongs to: a run ends with the id that brings it to ``least``."""
    runs, run, filled = [], 0, 0.0
    for value in expected.tolist():
        runs.append(run)
        filled += value
        if filled >= least:
            run, filled = run + 1, 0.0
    bins = torch.tensor(runs)
    return bins.clamp(max=max(run - 1, 0)) if filled < least else bins  # what is left over joins the last run
