"""Plans where each operator runs: strategies by name, all under a budget of device memory.

| strategy | what it does |
|---|---|
| ``operator`` | the placement whose modelled latency is lowest |
| ``edge-of-gpu`` | matrix products and attention on the device, in their order as many as fit; the rest on the host |
| ``cpu`` | everything on the host |

``operator`` is exact on a chain and on any graph in which few values are alive at once, such as a transformer with its
residuals; ``Placement.gap_seconds`` is 0 then. Where a graph is wider, or a thousand operators leave too many
near-equal choices, it says by how much a better placement could be faster at most. Proven plans never get slower with
more memory. Equal latencies are decided as ``placement_search`` says: the same profile gives the same placement.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from gaugeblock.reference.hybrid.placement import PLACES, Placement, PlacementError
from gaugeblock.reference.hybrid.placement_problem import (
    ON_DEVICE,
    ON_HOST,
    Problem,
    device_bytes,
    evaluate,
    problem_of,
)
from gaugeblock.reference.hybrid.placement_search import MOST_LABELS, search
from gaugeblock.reference.hybrid.placement_stages import TooWide, stages_of, ticks_of
from gaugeblock.reference.hybrid.profile import Profile

Plan = tuple[Sequence[int], float]  # places, and by how many seconds a better one can be faster
Strategy = Callable[[Problem, int, frozenset[int], int], Plan]


def plan(
    profile: Profile,
    budget: int,
    strategy: str = "operator",
    *,
    movable: Collection[str] | None = None,
    most_labels: int = MOST_LABELS,
) -> Placement:
    """Place a profiled module's operators with at most ``budget`` bytes on the device.

    ``movable`` operators may leave the host; all by default. The placement names the movable ones. ``most_labels``
    bounds the search's width, and with it its time.

    Raises:
        PlacementError: no such strategy, a negative budget, or a movable operator that was not profiled.
    """
    if strategy not in STRATEGIES:
        raise PlacementError(f"no strategy {strategy!r}; choose one of: {', '.join(STRATEGIES)}")
    if budget < 0:
        raise PlacementError(f"a device budget of {budget} bytes: 0 or more")
    problem = problem_of(profile, movable)
    heavy = frozenset(i for i, operator in enumerate(profile.operators) if operator.heavy and i not in problem.pinned)
    places, gap = STRATEGIES[strategy](problem, budget, heavy, most_labels)
    outcome = evaluate(problem, places)
    return Placement(
        strategy=strategy,
        devices={name: PLACES[places[i]] for i, name in enumerate(problem.names) if i not in problem.pinned},
        predicted_seconds=outcome.seconds,
        device_bytes=outcome.device_bytes,
        transfers=outcome.transfers,
        gap_seconds=gap,
    )


def _operator(problem: Problem, budget: int, heavy: frozenset[int], most_labels: int) -> Plan:
    """The lowest modelled latency, by search; where that cannot be done, by giving operators home one by one."""
    home = [ON_HOST] * len(problem.host)
    if budget < problem.reserve:
        return home, 0.0
    try:
        found = search(stages_of(problem), budget - problem.reserve, most_labels)
    except TooWide:
        return _by_hand(problem, budget), evaluate(problem, home).seconds
    return found.places[:-1], found.gap / ticks_of(problem)


def _by_hand(problem: Problem, budget: int) -> list[int]:
    """Start with everything on the host; move what gains most, one at a time, until nothing that fits gains."""
    places = [ON_HOST] * len(problem.host)
    best = evaluate(problem, places).seconds
    while True:
        trials = []
        for i in range(len(places)):
            if i in problem.pinned:
                continue
            trial = [*places[:i], 1 - places[i], *places[i + 1 :]]
            if device_bytes(problem, trial) <= budget:
                trials.append((evaluate(problem, trial).seconds, i, trial))
        if not trials or min(trials)[0] >= best:
            return places
        best, _, places = min(trials)


def _edge_of_gpu(problem: Problem, budget: int, heavy: frozenset[int], most_labels: int) -> Plan:
    places = [ON_HOST] * len(problem.host)
    for i in sorted(heavy):
        places[i] = ON_DEVICE
        if device_bytes(problem, places) > budget:
            places[i] = ON_HOST
            break
    return places, 0.0


def _cpu(problem: Problem, budget: int, heavy: frozenset[int], most_labels: int) -> Plan:
    return [ON_HOST] * len(problem.host), 0.0


STRATEGIES: dict[str, Strategy] = {"operator": _operator, "edge-of-gpu": _edge_of_gpu, "cpu": _cpu}
