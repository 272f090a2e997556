"""The placement planner: against every placement there is, at size, and where it cannot be exact."""

import random
from itertools import pairwise, product

import pytest

from gaugeblock.fixtures.targets.placement_problems import chain_edges, profile_of
from gaugeblock.reference.hybrid import planner
from gaugeblock.reference.hybrid.placement import PlacementError
from gaugeblock.reference.hybrid.placement_problem import Problem, Value, evaluate
from gaugeblock.reference.hybrid.placement_search import search
from gaugeblock.reference.hybrid.placement_stages import TooWide, stages_of, ticks_of
from gaugeblock.reference.hybrid.profile import Edge


def any_problem(rng, count):
    """Tensors between any two operators, also backwards (operators in two pieces); weights shared by several."""
    weights = [{f"{i}": rng.randint(0, 5)} | ({"tied": 7} if rng.random() < 0.4 else {}) for i in range(count)]
    values = []
    for producer in [None, *range(count)]:
        readers = tuple(c for c in range(count + 1) if c != producer and rng.random() < 2 / count)
        if readers:
            values.append(Value(producer, readers, rng.random() * 4, rng.random() * 4))
    return Problem(
        host=tuple(rng.random() * 10 for _ in range(count)),
        device=tuple(rng.random() * 6 for _ in range(count)),
        weights=tuple(weights),
        values=tuple(values),
        pinned=frozenset(i for i in range(count) if rng.random() < 0.1),
        reserve=rng.choice([0, 2]),
    )


@pytest.mark.parametrize("seed", range(60))
def test_no_placement_is_better(seed):
    rng = random.Random(seed)
    count = rng.randint(1, 8)
    problem = any_problem(rng, count)
    known = [
        evaluate(problem, places)
        for places in product((0, 1), repeat=count)
        if not any(places[i] for i in problem.pinned)
    ]
    for budget in (2, 8, 20):
        found = search(stages_of(problem), budget - problem.reserve)
        outcome = evaluate(problem, found.places[:-1])
        assert found.gap == 0
        assert outcome.device_bytes <= budget
        assert outcome.seconds == pytest.approx(min(o.seconds for o in known if o.device_bytes <= budget), abs=1e-9)
        assert found.ticks / ticks_of(problem) == pytest.approx(outcome.seconds, abs=1e-9)


def layers(count, jitter, rng):
    """A transformer with residuals, eight operators a layer, and a head."""
    host = [10.0, 400.0, 200.0, 200.0, 10.0, 900.0, 20.0, 500.0]
    device = [10.0, 30.0, 40.0, 20.0, 10.0, 50.0, 8.0, 30.0]
    size = [1, 1920, 0, 1152, 1, 6144, 0, 3072]
    times, weights, edges = [], [], [Edge("<input>", "op0", 1, 0)]
    before = residual = None
    for layer in range(count):
        first = 8 * layer
        times += [(a * rng.lognormvariate(0, jitter), b) for a, b in zip(host, device, strict=True)]
        weights += [{f"{first + i}": kept * 1152} for i, kept in enumerate(size)]
        edges += [Edge(f"op{a}", f"op{b}", 14, 0) for a, b in pairwise(range(first, first + 8))]
        edges += [Edge(f"op{a}", f"op{first}", 14, 1) for a in {before, residual} - {None}]
        edges.append(Edge(f"op{first}", f"op{first + 4}", 14, 2))
        before, residual = first + 7, first + 4
    edges.append(Edge(f"op{before}", "<output>", 14, 0))
    return profile_of(times, weights, edges)


@pytest.mark.parametrize("jitter", [0.0, 0.05, 0.5])
def test_a_thousand_operators_are_within_a_thousandth(jitter):
    profile = layers(125, jitter, random.Random(0))
    total = sum(sum(operator.weights.values()) for operator in profile.operators)
    before = planner.plan(profile, 0).predicted_seconds
    for share in (0.05, 0.9):
        made = planner.plan(profile, int(share * total))
        assert made.device_bytes <= share * total
        assert made.gap_seconds <= 2e-3 * before
        assert made.predicted_seconds < before
        before = made.predicted_seconds


def test_a_few_layers_are_planned_exactly():
    profile = layers(12, 0.0, random.Random(0))
    total = sum(sum(operator.weights.values()) for operator in profile.operators)
    assert [planner.plan(profile, total * part // 10).gap_seconds for part in range(1, 10)] == [0.0] * 9


def test_fewer_labels_say_what_they_lose():
    profile = layers(40, 0.0, random.Random(0))
    budget = sum(sum(operator.weights.values()) for operator in profile.operators) // 2
    exact, narrow = planner.plan(profile, budget), planner.plan(profile, budget, most_labels=4)
    assert narrow.gap_seconds > 0
    assert narrow.predicted_seconds - narrow.gap_seconds <= exact.predicted_seconds <= narrow.predicted_seconds


def test_a_graph_that_is_too_wide_is_planned_by_hand():
    count = 30
    edges = [Edge("<input>", f"op{i}", 1, i) for i in range(count - 1)]
    edges += [Edge(f"op{i}", f"op{count - 1}", 1, 0) for i in range(count - 1)]
    profile = profile_of([(9.0, 1.0)] * count, [{f"{i}": 1} for i in range(count)], edges)
    with pytest.raises(TooWide):
        stages_of(planner.problem_of(profile))
    made = planner.plan(profile, 10)
    assert made.device_bytes == 10
    assert made.gap_seconds == planner.plan(profile, 0, "cpu").predicted_seconds


def test_operators_that_may_not_leave_the_host_are_not_placed():
    profile = profile_of([(9.0, 1.0)] * 3, [{}] * 3, chain_edges([1, 1, 1, 1]))
    made = planner.plan(profile, 100, movable=["op0", "op2"])
    assert dict(made.devices) == {"op0": "device", "op2": "device"}
    with pytest.raises(PlacementError, match="operators that the profile has not: op7"):
        planner.plan(profile, 100, movable=["op7"])


def test_equal_places_are_the_host():
    profile = profile_of([(2.0, 2.0)] * 3, [{}] * 3, chain_edges([0, 0, 0, 0]))
    assert planner.plan(profile, 100).on_device == ()


def test_wrong_calls_are_refused():
    profile = profile_of([(1.0, 1.0)], [{}], chain_edges([0, 0]))
    with pytest.raises(PlacementError, match="no strategy 'gpu'; choose one of: operator, edge-of-gpu, cpu"):
        planner.plan(profile, 0, "gpu")
    with pytest.raises(PlacementError, match="-1 bytes: 0 or more"):
        planner.plan(profile, -1)
