"""Time the placement planner on a thousand operators: ``python benchmarks/placement_planner.py [RUNS]``.

CPU seconds of one thread, the least of RUNS: a busy machine adds to the wall clock, not to these. Where scipy or
ortools is installed, HiGHS and CP-SAT get the same problems and at most ten seconds of the wall clock each.
"""

from __future__ import annotations

import importlib.util
import random
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

from gaugeblock.reference.hybrid.placement_problem import Problem, Value
from gaugeblock.reference.hybrid.placement_search import search
from gaugeblock.reference.hybrid.placement_stages import stages_of, ticks_of

HOST = (10e-6, 400e-6, 200e-6, 200e-6, 10e-6, 900e-6, 20e-6, 500e-6)
DEVICE = (10e-6, 30e-6, 40e-6, 20e-6, 10e-6, 50e-6, 8e-6, 30e-6)
WEIGHTS = (1152, 1152 * 1920, 0, 1152 * 1152, 1152, 1152 * 6144, 0, 3072 * 1152)
COPY = 14e-6
LIMIT = 10.0


def transformer(jitter: float) -> Problem:
    """125 layers of eight operators with residuals; ``jitter`` makes their times differ, 0 leaves all layers equal."""
    draw, host, device, weights = random.Random(0), [], [], []
    readers: dict[tuple[int, int], list[int]] = {}
    before = residual = None
    for first in range(0, 1000, 8):
        host += [seconds * draw.lognormvariate(0, jitter) for seconds in HOST]
        device += [seconds * draw.lognormvariate(0, jitter) for seconds in DEVICE]
        weights += [{f"{first + i}": size} for i, size in enumerate(WEIGHTS)]
        for a, b in pairwise(range(first, first + 8)):
            readers[a, 0] = [b]
        for source, number in ((before, 0), (residual, 1)):
            if source is not None:
                readers[source, number] = [first]
        readers[first, 1] = [first + 4]
        before, residual = first + 7, first + 4
    readers[before or 0, 0] = [len(host)]
    values = tuple(Value(a, tuple(b), COPY, COPY) for (a, _), b in readers.items())
    return Problem(tuple(host), tuple(device), tuple(weights), values)


def chain(same: bool) -> Problem:
    """A thousand operators in a row: all the same, or times and sizes over many orders of magnitude."""
    draw = random.Random(0)
    host = [1e-4 if same else 10 ** draw.uniform(-6, -3) for _ in range(1000)]
    device = [seconds * (0.1 if same else 10 ** draw.uniform(-2, 0.5)) for seconds in host]
    weights = tuple({f"{i}": 1000 if same else int(10 ** draw.uniform(2, 7))} for i in range(1000))
    copies = [2e-4 if same else 1e-5 + 10 ** draw.uniform(3, 6) / 1e10 for _ in range(1000)]
    return Problem(
        tuple(host), tuple(device), weights, tuple(Value(i, (i + 1,), copy, copy) for i, copy in enumerate(copies))
    )


def by_labels(problem: Problem, budget: int) -> tuple[float, bool]:
    """Return the seconds of our plan, and whether it is proven."""
    found = search(stages_of(problem), budget)
    return found.ticks / ticks_of(problem), found.gap == 0


def by_highs(problem: Problem, budget: int) -> tuple[float, bool]:
    """The same by mixed-integer programming."""
    import numpy as np
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import coo_matrix

    count, edges = len(problem.host), [(v.producer, v.consumers[0], v) for v in problem.values]
    rows, columns, signs = [], [], []
    for k, (a, b, _) in enumerate(edges):  # what moves there − what moves back = consumer's place − producer's
        ends = [(a, 1), (b, -1)] if b < count else [(a, 1)]
        for column, sign in [*ends, (count + k, 1), (count + len(edges) + k, -1)]:
            rows, columns, signs = [*rows, k], [*columns, column], [*signs, sign]
    size = np.array([sum(held.values()) for held in problem.weights], float)
    cost = [d - h for h, d in zip(problem.host, problem.device, strict=True)]
    cost += [v.to_device for *_, v in edges] + [v.to_host for *_, v in edges]
    flow = LinearConstraint(coo_matrix((signs, (rows, columns)), shape=(len(edges), len(cost))), 0, 0)
    room = LinearConstraint(
        np.concatenate([size, np.zeros(2 * len(edges))])[None] / size.max(), -np.inf, budget / size.max()
    )
    kinds = np.concatenate([np.ones(count), np.zeros(2 * len(edges))])
    options = {"time_limit": LIMIT, "mip_rel_gap": 0}
    found = milp(
        np.array(cost) * 1e6, constraints=[flow, room], integrality=kinds, bounds=Bounds(0, 1), options=options
    )
    return found.fun / 1e6 + sum(problem.host), found.status == 0


def by_cp_sat(problem: Problem, budget: int) -> tuple[float, bool]:
    """The same by constraint programming, in whole nanoseconds."""
    from ortools.sat.python import cp_model

    model = cp_model.CpModel()
    places = [model.NewBoolVar("") for _ in problem.host] + [model.NewConstant(0)]
    terms: list[Any] = []
    for place, host, device in zip(places, problem.host, problem.device, strict=False):
        terms.append(place * round(1e9 * (device - host)))
    for value in problem.values:
        there, back = model.NewBoolVar(""), model.NewBoolVar("")
        source, target = places[value.producer or 0], places[value.consumers[0]]
        model.AddBoolOr([there, source, target.Not()])
        model.AddBoolOr([back, target, source.Not()])
        terms += [there * round(1e9 * value.to_device), back * round(1e9 * value.to_host)]
    sizes = [sum(held.values()) for held in problem.weights]
    model.Add(sum(place * size for place, size in zip(places, sizes, strict=False)) <= budget)
    model.Minimize(sum(terms))
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds, solver.parameters.num_workers = LIMIT, 1
    status = solver.Solve(model)
    return solver.ObjectiveValue() / 1e9 + sum(problem.host), status == cp_model.OPTIMAL


def solvers() -> Iterator[tuple[str, Callable[[Problem, int], tuple[float, bool]]]]:
    """Yield ours, and those that are installed."""
    yield "ours", by_labels
    for name, package, solve in (("HiGHS", "scipy", by_highs), ("CP-SAT", "ortools", by_cp_sat)):
        if importlib.util.find_spec(package):
            yield name, solve


def main(runs: int) -> None:
    """Print a table."""
    problems = {
        "layers all equal": transformer(0),
        "layers, times differ by 5%": transformer(0.05),
        "layers, times differ by 50%": transformer(0.5),
        "chain, all equal": chain(same=True),
        "chain, random sizes": chain(same=False),
    }
    print("| problem | budget | solver | CPU s | plan ms | proven |\n|---|---|---|---|---|---|")
    for what, problem in problems.items():
        total = sum(sum(held.values()) for held in problem.weights)
        for share in (0.02, 0.5, 0.9):
            for name, solve in solvers():
                taken = []
                for _ in range(runs if name == "ours" else 1):
                    start = time.process_time()
                    seconds, proven = solve(problem, int(share * total))
                    taken.append(time.process_time() - start)
                print(
                    f"| {what} | {share:.0%} | {name} | {min(taken):.2f} | {1e3 * seconds:.3f} | "
                    f"{'yes' if proven else 'no'} |",
                    flush=True,
                )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
