"""HYB-038."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.pretend_devices import PretendDevices

SLACK = 1e-6  # of the latency: the link is a least-squares fit in float64


@check(
    "HYB-038",
    feature="placement",
    bound="on places of known costs, with a clock of their own, predicted and measured latency agree to 1e-6; a real "
    "machine has a gate of 25%, which `gaugeblock place` reports",
)
def test_hyb_038(pretend: type[PretendDevices], record_property: Callable[[str, object], None]) -> None:
    """A plan's latency is the one that running it takes

    From the profile of a model to the prediction everything is involved: times by place, links, edges, and what moves
    once for several readers. Look at the transfers first: the message has those planned and those that happened.
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
    record_property("evidence", f"{len(seen)} different plans take what was predicted, to {SLACK:g}")
