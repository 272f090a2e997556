"""The cheapest way through the stages within a number of bytes: labels, and Lagrangian bounds that end most of them.

A label is a way to a state: its ticks and bytes. Of two labels at one state the one that is no cheaper and no smaller
is dropped; so is one that cannot become cheaper than the best way known. How cheap it can become is bounded by pricing
bytes: with a price λ the cheapest way from each state on is found by one walk backwards, and ``ticks + cheapest(λ) −
λ · (bytes left)`` is never above what is possible. The same walk gives ways that fit, which are the best known until
the labels find better ones.

Equal labels are decided by the host for the last operator in which they differ, and a way that only equals the best one
known is not followed: the same problem has the same answer.

If a stage has more than ``MOST_LABELS`` labels, half of those kept are the most promising and half of all sizes. The
result is no longer proven then: ``gap`` says by how much it can be off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

from gaugeblock.reference.hybrid.placement_stages import FORBIDDEN, RESOLUTION, Ints, Stage

Floats = NDArray[np.float64]
MOST_LABELS = 10_000
MANY = 2_500_000  # labels in all stages so far, about half a second's; then a twentieth of MOST_LABELS must do
PRICES = 32  # tried at once: a walk costs its steps more than its width
ROUNDS = 3
HALF = 0.5  # tick: float64 rounding of a bound is far below, and ways differ by whole ticks
SIZE_BITS = 46  # of a label's bytes in its sort key: 64 TiB
COMPLETE_EVERY = 8  # stages


@dataclass(frozen=True)
class Found:
    """The places by stage, their ticks and bytes, and by how many ticks a better way can be cheaper (0: by none)."""

    places: tuple[int, ...]
    ticks: int
    size: int
    gap: int


@dataclass(frozen=True)
class Priced:
    """The cheapest ways on from every state at prices λ: ticks plus λ · bytes, and the bytes, [states, prices]."""

    prices: Floats
    cheapest: list[Floats]
    size: list[Floats]

    @classmethod
    def of(cls, stages: Sequence[Stage], prices: Floats) -> Priced:
        """Walk backwards."""
        cheapest, size = [np.zeros((1, len(prices)))], [np.zeros((1, len(prices)))]
        for stage in reversed(stages):
            step = stage.size[:, :, None].astype(np.float64)
            ways = stage.cost[:, :, None] + step * prices + cheapest[-1][stage.then]  # [states, 2, prices]
            there = ways[:, 1] < ways[:, 0]
            sizes = step + size[-1][stage.then]
            cheapest.append(np.where(there, ways[:, 1], ways[:, 0]))
            size.append(np.where(there, sizes[:, 1], sizes[:, 0]))
        return cls(prices, cheapest[::-1], size[::-1])

    def only(self, columns: Sequence[int]) -> Priced:
        """Return the same for some of the prices."""
        keep = list(columns)
        return Priced(self.prices[keep], [c[:, keep] for c in self.cheapest], [s[:, keep] for s in self.size])


def search(stages: Sequence[Stage], budget: int, most_labels: int = MOST_LABELS) -> Found:
    """Return the cheapest places that hold at most ``budget`` bytes; all on the host always fits."""
    priced = _price(stages, budget)
    return _Labels(stages, budget, priced, most_labels).run()


def _price(stages: Sequence[Stage], budget: int) -> Priced:
    """Return the prices at which bytes are worth the budget: the one with the highest bound, and its neighbours."""
    everything = float(sum(stage.size.max(initial=0) for stage in stages)) or 1.0
    usual = float(sum(np.abs(stage.cost[0, 0] - stage.cost[0, 1] % FORBIDDEN) for stage in stages)) / everything
    usual = max(usual, RESOLUTION / everything * 1e-6)
    prices = np.concatenate(([0.0], usual * np.geomspace(1e-3, 1e3, PRICES - 2), [RESOLUTION]))
    for _ in range(ROUNDS):
        priced = Priced.of(stages, prices)
        fits = priced.size[0][0] <= budget
        best = int(np.argmax(fits))  # the lowest price at which the cheapest way fits
        if best == 0:
            return priced.only([0, min(1, len(prices) - 1)])
        low, high = float(prices[best - 1]), float(prices[best])
        crossing = _crossing(priced, best)
        around = np.linspace(low, high, PRICES - 1)
        prices = np.unique(np.append(around, min(max(crossing, low), high)))
    return priced.only([best - 1, best])


def _crossing(priced: Priced, best: int) -> float:
    """Return the price at which the ways on both sides of the budget cost the same."""
    price, size = priced.prices, priced.size[0][0]
    ticks = priced.cheapest[0][0] - price * size
    return float((ticks[best] - ticks[best - 1]) / (size[best - 1] - size[best]))


class _Labels:
    """The walk forwards. Labels of a stage are columns of equal length: state, ticks, bytes."""

    def __init__(self, stages: Sequence[Stage], budget: int, priced: Priced, most: int) -> None:
        self.stages, self.budget, self.priced, self.most = stages, budget, priced, most
        self.history: list[tuple[Ints, NDArray[np.int8]]] = []  # by stage: the label before, and the place
        self.best = np.inf  # ticks of the best way known
        self.how = (0, 0, 0)  # that way: stage, label and price from which on it is the cheapest at that price
        self.lost = np.inf  # the lowest bound of labels that were dropped unproven
        self.seen = 0  # labels in all stages so far
        self.sifted = 1  # labels that were left when dominated ones were last looked for

    def run(self) -> Found:
        """Walk through all stages."""
        state, ticks, size = (np.zeros(1, dtype=np.int64) for _ in range(3))
        self._complete(0, state, ticks, size)
        for number, stage in enumerate(self.stages, 1):
            count = len(state)
            ticks = (ticks[:, None] + stage.cost[state]).T.ravel()  # those of the host first
            size = (size[:, None] + stage.size[state]).T.ravel()
            state = stage.then[state].T.ravel()
            kept = self._promising(number, state, ticks, size)
            if len(kept) > 1.25 * self.sifted or number == len(self.stages):
                kept = kept[undominated(state[kept], ticks[kept], size[kept])]
                kept = self._fewest(number, kept, state, ticks, size)
                self.sifted = len(kept)
            state, ticks, size = state[kept], ticks[kept], size[kept]
            self.seen += len(kept)
            self.history.append((kept % count, (kept // count).astype(np.int8)))
            if number % COMPLETE_EVERY == 0 or number == len(self.stages):
                self._complete(number, state, ticks, size)
        return self._result()

    def _bound(self, number: int, state: Ints, ticks: Ints, size: Ints) -> Floats:
        """Return ticks below which no way that goes on from these labels can come."""
        left = (self.budget - size).astype(np.float64)
        onward = self.priced.cheapest[number][state] - self.priced.prices * left[:, None]
        bound: Floats = ticks + onward.max(axis=1)
        return bound

    def _promising(self, number: int, state: Ints, ticks: Ints, size: Ints) -> Ints:
        """Return the labels that fit and may become cheaper than the best way known."""
        fits = np.flatnonzero(size <= self.budget)
        bound = self._bound(number, state[fits], ticks[fits], size[fits])
        return fits[bound < self.best - HALF]

    def _fewest(self, number: int, kept: Ints, state: Ints, ticks: Ints, size: Ints) -> Ints:
        """Return ``MOST_LABELS`` of the labels at most: half of them the most promising, half of all sizes."""
        most = self.most if self.seen < MANY else self.most // 20 + 2
        if len(kept) <= most:
            return kept
        bound = self._bound(number, state[kept], ticks[kept], size[kept])
        order = np.argsort(bound, kind="stable")
        rest = np.sort(order[most // 2 :])  # by state and size again
        spread = np.linspace(0, len(rest) - 1, most - most // 2).astype(np.int64)
        chosen = np.concatenate((order[: most // 2], rest[spread]))
        lost = np.ones(len(kept), dtype=bool)
        lost[chosen] = False
        self.lost = min(self.lost, float(bound[lost].min()))
        return kept[np.sort(chosen)]

    def _complete(self, number: int, state: Ints, ticks: Ints, size: Ints) -> None:
        """Complete each label by the cheapest way at each price; one that fits may be the best known."""
        if not len(state):
            return
        rest = self.priced.size[number][state]  # [labels, prices]
        total = ticks[:, None] + self.priced.cheapest[number][state] - self.priced.prices * rest
        total = np.where(size[:, None] + rest <= self.budget, total, np.inf)
        label, price = divmod(int(np.argmin(total)), total.shape[1])
        if total[label, price] < self.best - HALF:
            self.best, self.how = float(total[label, price]), (number, label, price)

    def _result(self) -> Found:
        number, label, price = self.how
        places = self._back(number, label)
        places += self._on(places, price)
        state, ticks, size = 0, 0, 0
        for stage, place in zip(self.stages, places, strict=True):
            ticks, size = ticks + int(stage.cost[state, place]), size + int(stage.size[state, place])
            state = int(stage.then[state, place])
        return Found(tuple(places), ticks, size, max(0, ceil(ticks - min(self.lost, ticks))))

    def _back(self, number: int, label: int) -> list[int]:
        """Return the places on the way to a label behind ``number`` stages."""
        places = []
        for before, place in reversed(self.history[:number]):
            places.append(int(place[label]))
            label = int(before[label])
        return places[::-1]

    def _on(self, places: Sequence[int], price: int) -> list[int]:
        """Return the places on the cheapest way on from behind ``places`` at a price."""
        state, onward = 0, []
        for stage, place in zip(self.stages, places, strict=False):
            state = int(stage.then[state, place])
        value = float(self.priced.prices[price])
        for number, stage in enumerate(self.stages[len(places) :], len(places) + 1):
            ways = (
                stage.cost[state] + stage.size[state] * value + self.priced.cheapest[number][stage.then[state], price]
            )
            onward.append(int(ways[1] < ways[0]))
            state = int(stage.then[state, onward[-1]])
        return onward


def undominated(state: Ints, ticks: Ints, size: Ints) -> Ints:
    """Return the labels than which none at the same state is as small and as cheap, by state and size."""
    place = (state << SIZE_BITS) + size
    order = np.argsort(place, kind="stable")  # a merge of runs: labels of a state come in by size
    place, ticks = place[order], ticks[order]
    key = ticks - (place >> SIZE_BITS) * (2 * RESOLUTION)  # a later state is below all earlier ones: its own minimum
    kept = np.ones(len(order), dtype=bool)
    kept[1:] = key[1:] < np.minimum.accumulate(key)[:-1]
    order, place = order[kept], place[kept]
    last = np.ones(len(order), dtype=bool)  # of those of one size the last is the cheapest
    last[:-1] = place[1:] != place[:-1]
    return order[last]
