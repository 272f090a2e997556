"""HYB-033."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.pretend_devices import PretendDevices


@check(
    "HYB-033",
    feature="placement",
    bound="exact: by each strategy and budget every operator of the model has one place, in a file and read again too; "
    "a budget too small for anything leaves all on the host",
    sources=("https://github.com/huggingface/transformers/issues/46566",),
)
def test_hyb_033(pretend: type[PretendDevices], record_property: Callable[[str, object], None]) -> None:
    """A plan places every operator of the model once

    An operator without a place is not computed, or where nobody expects it. Look at the operators that a plan is made
    of: all that the profile has, those too that take no time and hold no weight.
    """
    from gaugeblock.fixtures.targets.placement_problems import all_weights
    from gaugeblock.fixtures.targets.pretend_devices import Costed, Model, model_input
    from gaugeblock.reference.hybrid import planner
    from gaugeblock.reference.hybrid.placement import Placement, PlacementError

    world = pretend()
    model = Model(world)
    operators = [name for name, sub in model.named_modules() if isinstance(sub, Costed)]
    profile = world.profile(model, (model_input(),))
    total = all_weights(profile) + profile.activation_bytes
    moved = 0
    for strategy in planner.STRATEGIES:
        for budget in (0, 1, total // 2, total, 10 * total):
            made = planner.plan(profile, budget, strategy)
            missing = [name for name in operators if name not in made.devices]
            assert not missing, f"{strategy}, {budget} bytes: operators without a place: {', '.join(missing)}"
            assert sorted(made.devices) == sorted(operators), f"{strategy} places {sorted(made.devices)}"
            assert Placement.from_json(made.to_json()) == made, f"{strategy}: the file holds another placement"
            if budget <= 1:
                assert not made.on_device, f"{strategy} puts {made.on_device} into {budget} bytes"
            moved += len(made.on_device)
    assert moved, "no plan has an operator on the device: nothing was checked"
    with pytest.raises(PlacementError) as refusal:
        planner.plan(profile, total, "fastest")
    unnamed = [strategy for strategy in planner.STRATEGIES if strategy not in str(refusal.value)]
    assert not unnamed, f"the refusal of an unknown strategy does not name {unnamed}: {refusal.value}"
    record_property("evidence", f"{len(operators)} operators by {len(planner.STRATEGIES)} strategies in 5 budgets")
