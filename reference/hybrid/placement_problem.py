"""The planner's model of a pass: what each choice of places costs, and what it holds on the device.

A pass takes the sum of its operators' times, each at its place, and of its transfers: a value goes over the bus once if
any operator on the other side reads it. Where the operator right behind its producer is among the readers, moving it
costs what that operator takes longer after such a switch, too. The device holds the weights of its operators, each
once.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, pairwise

from gaugeblock.reference.hybrid.placement import DEVICE, HOST, PlacementError
from gaugeblock.reference.hybrid.profile import INPUT, OUTPUT, Link, Profile

ON_HOST, ON_DEVICE = 0, 1


@dataclass(frozen=True)
class Value:
    """A tensor that ``producer`` makes (None: the caller, on the host) and ``consumers`` read.

    Operators are numbered in their order; the number behind the last one is the caller again. ``to_device`` and
    ``to_host`` are the seconds that moving it takes.
    """

    producer: int | None
    consumers: tuple[int, ...]
    to_device: float
    to_host: float


@dataclass(frozen=True)
class Problem:
    """Operators in order: seconds at each place, weights by name in bytes, and the values between them.

    ``pinned`` operators stay on the host. ``reserve`` bytes are taken on the device as soon as anything is there.
    """

    host: tuple[float, ...]
    device: tuple[float, ...]
    weights: tuple[Mapping[str, int], ...]
    values: tuple[Value, ...]
    pinned: frozenset[int] = frozenset()
    reserve: int = 0
    names: tuple[str, ...] = field(default=())


@dataclass(frozen=True)
class Outcome:
    """What the model says of a choice: seconds of a pass, bytes on the device, values that move."""

    seconds: float
    device_bytes: int
    transfers: int


def evaluate(problem: Problem, places: Sequence[int]) -> Outcome:
    """Return what ``places`` (0 host, 1 device, by operator) costs."""
    whole = [*places, ON_HOST]  # the caller
    seconds = [(problem.host, problem.device)[place][i] for i, place in enumerate(places)]
    transfers = 0
    for value in problem.values:
        source = ON_HOST if value.producer is None else places[value.producer]
        if any(whole[consumer] != source for consumer in value.consumers):
            seconds.append(value.to_host if source == ON_DEVICE else value.to_device)
            transfers += 1
    return Outcome(sum(seconds), device_bytes(problem, places), transfers)


def device_bytes(problem: Problem, places: Sequence[int]) -> int:
    """Return the bytes that the device holds at most: its operators' weights, each once, and the reserve."""
    held = [weights for weights, place in zip(problem.weights, places, strict=True) if place == ON_DEVICE]
    if not held:
        return 0
    return problem.reserve + sum(dict(chain.from_iterable(weights.items() for weights in held)).values())


def problem_of(profile: Profile, movable: Collection[str] | None = None) -> Problem:
    """Return the problem that a profile poses. ``movable`` operators may leave the host; all of them by default.

    The reserve is the most that is alive of inputs and results at any moment of a pass: a bound for every placement.

    Raises:
        PlacementError: a movable operator that the profile does not have.
    """
    names = tuple(profile.by_name)
    number = {name: i for i, name in enumerate(names)} | {OUTPUT: len(names)}
    free = set(names if movable is None else movable)
    if foreign := free - set(names):
        raise PlacementError(f"operators that the profile has not: {', '.join(sorted(foreign))}")
    consumers: dict[tuple[str, int], dict[int, int]] = {}
    for edge in profile.edges:
        consumers.setdefault((edge.producer, edge.tensor), {})[number[edge.consumer]] = edge.bytes
    behind = dict(pairwise([INPUT, *(operator.name for operator in profile.operators if not operator.own)]))

    def seconds(producer: str, readers: Mapping[int, int], link: Link, place: str) -> float:
        follower = behind.get(producer)
        switch = profile.switched(follower, place) if follower and number[follower] in readers else 0.0
        return link.seconds(max(readers.values())) + switch

    values = tuple(
        Value(
            None if producer == INPUT else number[producer],
            tuple(sizes),
            seconds(producer, sizes, profile.to_device, DEVICE),
            seconds(producer, sizes, profile.to_host, HOST),
        )
        for (producer, _), sizes in consumers.items()
    )
    return Problem(
        host=tuple(profile.cost(name, HOST) for name in names),
        device=tuple(profile.cost(name, DEVICE) for name in names),
        weights=tuple(operator.weights for operator in profile.operators),
        values=values,
        pinned=frozenset(number[name] for name in names if name not in free),
        reserve=profile.activation_bytes,
        names=names,
    )
