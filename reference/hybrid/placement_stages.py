"""The choices of a placement as a layered graph: a stage for each operator, a state for what later ones must know.

Walking the operators in their order, a choice is as good as another one if the same values lie at the same places, so a
state is where each value is that is still read: on the host, on the device, on both. Two more things are remembered:
who waits for a value of a later operator (an operator in two pieces), and whether weights that are used again are on
the device. A chain has two states a stage, a transformer with its residuals about eight.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import floor, log2

import numpy as np
from numpy.typing import NDArray

from gaugeblock.reference.hybrid.placement_problem import ON_DEVICE, ON_HOST, Problem

Ints = NDArray[np.int64]
State = tuple[int, ...]
Slot = int | str  # the number of a value, or the name of weights
SIDES = (1, 2)  # bits of the host and of the device
BOTH = 3
RESOLUTION = 2**44  # ticks in the sum of all costs: integers tie exactly, and float64 holds any sum of them
FORBIDDEN = 2**46
MOST_STATES = 4096


class TooWide(Exception):
    """More states in a stage than ``MOST_STATES``: too many values are alive at once for an exact plan."""


@dataclass(frozen=True)
class Stage:
    """An operator's choices by state and place, [states, 2]: ticks, bytes of weights, and the state that follows."""

    cost: Ints
    size: Ints
    then: Ints


def ticks_of(problem: Problem) -> float:
    """Return ticks a second, a power of two: sums of whole seconds stay exact. No pass has more than ``RESOLUTION``."""
    dearest = sum(problem.host) + sum(problem.device) + sum(v.to_device + v.to_host for v in problem.values)
    return 2.0 ** floor(log2(RESOLUTION / dearest)) if dearest > 0 else 1.0


def stages_of(problem: Problem) -> list[Stage]:
    """Return the stages; the last one is the caller's, who reads on the host.

    Raises:
        TooWide: the states of a stage exceed ``MOST_STATES``.
    """
    return _Walk(problem).stages()


class _Walk:
    def __init__(self, problem: Problem) -> None:
        ticks = ticks_of(problem)
        self.count = len(problem.host) + 1
        self.times = [(round(a * ticks), round(b * ticks)) for a, b in zip(problem.host, problem.device, strict=True)]
        self.times.append((0, 0))
        self.pinned = problem.pinned | {self.count - 1}
        self.moves = [(round(v.to_host * ticks), round(v.to_device * ticks)) for v in problem.values]
        self.reads: list[list[int]] = [[] for _ in range(self.count)]
        self.waits: list[list[int]] = [[] for _ in range(self.count)]
        self.makes: list[list[int]] = [[] for _ in range(self.count)]
        self.last_use: dict[Slot, int] = {}
        for number, value in enumerate(problem.values):
            made = -1 if value.producer is None else value.producer
            if made >= 0:
                self.makes[made].append(number)
            for consumer in value.consumers:
                (self.waits if consumer < made else self.reads)[consumer].append(number)
            self.last_use[number] = max(made, *value.consumers)
        self.start = {n: SIDES[ON_HOST] for n, value in enumerate(problem.values) if value.producer is None}
        self._weights(problem)

    def _weights(self, problem: Problem) -> None:
        users: dict[str, list[int]] = {}
        for i, weights in enumerate(problem.weights):
            for name in weights:
                users.setdefault(name, []).append(i)
        self.alone = [0] * self.count
        self.shared: list[list[tuple[str, int]]] = [[] for _ in range(self.count)]
        for i, weights in enumerate(problem.weights):
            for name, size in weights.items():
                if len(users[name]) == 1:
                    self.alone[i] += size
                else:
                    self.shared[i].append((name, size))
                    self.last_use[name] = users[name][-1]

    def stages(self) -> list[Stage]:
        slots: tuple[Slot, ...] = tuple(self.start)
        states: list[State] = [tuple(self.start.values())]
        found = []
        for i in range(self.count):
            made: tuple[Slot, ...] = (*self.makes[i], *self.waits[i], *(name for name, _ in self.shared[i]))
            behind = tuple(slot for slot in dict.fromkeys((*slots, *made)) if self.last_use[slot] > i)
            index: dict[State, int] = {}
            rows = [self._choices(i, dict(zip(slots, state, strict=True)), behind, index) for state in states]
            if len(index) > MOST_STATES:
                raise TooWide
            table = np.array(rows, dtype=np.int64)  # [states, 2, 3]
            found.append(Stage(*(np.ascontiguousarray(table[:, :, column]) for column in range(3))))
            slots, states = behind, list(index)
        return found

    def _choices(
        self, i: int, known: dict[Slot, int], behind: tuple[Slot, ...], index: dict[State, int]
    ) -> list[tuple[int, int, int]]:
        """Return (ticks, bytes, next state) of the host and of the device."""
        host = self._choose(i, ON_HOST, dict(known), behind, index)
        if i in self.pinned:
            return [host, (FORBIDDEN, 0, host[2])]
        return [host, self._choose(i, ON_DEVICE, known, behind, index)]

    def _choose(
        self, i: int, place: int, known: dict[Slot, int], behind: tuple[Slot, ...], index: dict[State, int]
    ) -> tuple[int, int, int]:
        cost, size, side = self.times[i][place], self.alone[i] if place else 0, SIDES[place]
        for value in self.reads[i]:
            if not known[value] & side:
                cost += self.moves[value][place]
                known[value] = BOTH
        for value in self.waits[i]:
            known[value] = known.get(value, 0) | side
        for value in self.makes[i]:
            needed = known.get(value, 0) | side
            cost += self.moves[value][1 - place] if needed == BOTH else 0
            known[value] = needed
        for name, weight in self.shared[i]:
            there = known.setdefault(name, 0)
            if place and not there:
                size += weight
                known[name] = 1
        state = tuple([known[slot] for slot in behind])
        return cost, size, index.setdefault(state, len(index))
