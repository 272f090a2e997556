"""HYB-038."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.pretend_devices import PretendDevices

SLACK = 1e-6  # of the latency: the link is a least-squares fit in float64
TROUBLES = {
    "waits that take 2 s each": {"wait": 2.0},
    "threads that wake up in 5 s behind the device": {"wake": 5.0},
    "every third pass lucky": {"luck": 0.75},
    "all three": {"wait": 2.0, "wake": 5.0, "luck": 0.75},
}
"""What disturbs a clock, in the terms of ``PretendDevices``; the shortest operator takes 1.5 s."""


@check(
    "HYB-038",
    feature="placement",
    bound="on places of known costs, with a clock of their own, predicted and measured latency agree to 1e-6, also "
    "where waiting, waking up and luck disturb it; a real machine has a gate of 25%, which `gaugeblock place` reports",
)
def test_hyb_038(pretend: type[PretendDevices], record_property: Callable[[str, object], None]) -> None:
    """A plan's latency is the one that running it takes

    From the profile of a model to the prediction everything is involved: times by place, links, edges, and what moves
    once for several readers. Look at the transfers first: the message has those planned and those that happened. What
    instruments add to each call is taken from each, what switching sides costs is paid, and medians are held against
    medians: the message names what disturbs the clock.
    """
    from gaugeblock.fixtures.targets.pretend_devices import Model, model_input
    from gaugeblock.reference.hybrid import planner

    world = pretend()
    model, x = Model(world), model_input()
    profile = world.profile(model, (x,))
    seen = set()
    for budget in range(0, 4096, 256):
        for strategy in planner.STRATEGIES:
            made = planner.plan(profile, budget, strategy)
            taken = world.run(model, (x,), made.devices)
            assert abs(made.predicted_seconds / taken - 1) <= SLACK, (
                f"{strategy} with {budget} bytes: predicted {made.predicted_seconds:g} s with {made.transfers} "
                f"transfers, measured {taken:g} s with {world.moved}; on the device: {', '.join(made.on_device)}"
            )
            assert made.transfers == world.moved, f"{strategy}: {made.transfers} transfers planned, {world.moved} seen"
            seen.add((made.transfers, made.on_device))
    assert len(seen) >= 5, f"only {len(seen)} different plans: nothing was checked"
    for trouble, planted in TROUBLES.items():
        _assert_all_predicted(pretend(**planted), trouble)
    record_property("evidence", f"{len(seen)} plans and {len(TROUBLES)} troubled clocks as predicted, to {SLACK:g}")


def _assert_all_predicted(world: PretendDevices, trouble: str) -> None:
    """Hold the prediction of each placement of a chain to what running it takes."""
    from gaugeblock.fixtures.targets.pretend_devices import chain, model_input
    from gaugeblock.reference.hybrid.placement import PLACES
    from gaugeblock.reference.hybrid.placement_problem import evaluate, problem_of
    from gaugeblock.reference.hybrid.profiler import REPEATS

    model, x = chain(world), model_input()
    problem = problem_of(world.profile(model, (x,), REPEATS))
    for places in product((0, 1), repeat=len(model)):
        taken = world.run(model, (x,), {str(i): PLACES[place] for i, place in enumerate(places)})
        predicted = evaluate(problem, places).seconds
        assert abs(predicted / taken - 1) <= SLACK, (
            f"{trouble}: predicted {predicted:g} s, measured {taken:g} s with places {places} (0 host, 1 device)"
        )
