"""HYB-037."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.pretend_devices import PretendDevices


@check(
    "HYB-037",
    feature="placement",
    bound="exact: with room for all, edge-of-gpu has on the device the operators with a matrix product and no other; "
    "with less, the first of them in their order; cpu has none there; operator is never predicted slower than either",
)
def test_hyb_037(pretend: type[PretendDevices], record_property: Callable[[str, object], None]) -> None:
    """A strategy does what its name says

    Edge-of-GPU keeps norms, activations and sampling on the CPU, so that the device's memory is left to matrix products
    and attention. Look at how heavy operators are told from light ones.
    """
    from gaugeblock.fixtures.targets.pretend_devices import Linear, Model, model_input
    from gaugeblock.reference.hybrid import planner

    world = pretend()
    model = Model(world)
    profile = world.profile(model, (model_input(),))
    heavy = [name for name, sub in model.named_modules() if isinstance(sub, Linear)]
    held = 0
    for budget in range(0, 4096, 128):
        plans = {name: planner.plan(profile, budget, name) for name in planner.STRATEGIES}
        assert not plans["cpu"].on_device, f"cpu puts {plans['cpu'].on_device} on the device"
        edge = plans["edge-of-gpu"].on_device
        light = [name for name in edge if name not in heavy]
        assert not light, f"edge-of-gpu puts {', '.join(light)} on the device, which multiply no matrices"
        assert list(edge) == heavy[: len(edge)], f"edge-of-gpu skips some of {heavy}: {edge}"
        best = plans["operator"].predicted_seconds
        slower = [name for name, made in plans.items() if made.predicted_seconds < best - 1e-9]
        assert not slower, f"with {budget} bytes, {', '.join(slower)} is predicted faster than operator"
        held = max(held, len(edge))
    assert held == len(heavy), f"with room for all, edge-of-gpu has {held} of {len(heavy)} heavy operators there"
    record_property("evidence", f"{len(heavy)} heavy operators of {len(profile.operators)}, 32 budgets")
