"""HYB-034."""

from __future__ import annotations

from collections.abc import Callable

from gaugeblock.conformance.check import check

DRAWN = 40


@check(
    "HYB-034",
    feature="placement",
    bound="exact: by each strategy the bytes on the device are at most the budget, and those planned are those counted "
    "again: each weight once however many operators share it, and the activations",
    sources=(
        "https://github.com/vllm-project/compressed-tensors/pull/566",
        "https://github.com/huggingface/transformers/pull/46625",
    ),
)
def test_hyb_034(record_property: Callable[[str, object], None]) -> None:
    """A plan holds no more on the device than its budget

    A plan that forgets activations ends out of memory under load; one that counts a tied weight twice leaves room
    unused. Look at weights by identity, and at what is alive beside them.
    """
    from gaugeblock.conformance.hybrid.drawn_plans import drawn
    from gaugeblock.fixtures.targets.placement_problems import TIED, TIED_BYTES, all_weights, graphs, held
    from gaugeblock.reference.hybrid import planner
    from gaugeblock.reference.hybrid.placement import DEVICE
    from gaugeblock.reference.hybrid.profile import Profile

    seen = {"tight": 0, "tied": 0}

    def within(profile: Profile) -> None:
        for budget in range(0, all_weights(profile) + profile.activation_bytes + 1, 2):
            for strategy in planner.STRATEGIES:
                made = planner.plan(profile, budget, strategy)
                counted = held(profile, dict(made.devices))
                assert counted <= budget, f"{strategy} with {budget} bytes holds {counted}: {made.on_device}"
                assert made.device_bytes == counted, (
                    f"{strategy} reckons with {made.device_bytes} bytes for {made.on_device}, which hold {counted}"
                )
                shared = [o for o in profile.operators if TIED in o.weights and made.devices[o.name] == DEVICE]
                seen["tied"] += len(shared) > 1
                seen["tight"] += bool(made.on_device) and budget - counted < TIED_BYTES

    drawn(graphs(), within, DRAWN)
    assert min(seen.values()) > 10, f"{seen}: nothing was checked"
    record_property("evidence", f"{DRAWN} graphs, {seen['tight']} tight plans, {seen['tied']} with a weight shared")
