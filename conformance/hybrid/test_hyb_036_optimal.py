"""HYB-036."""

from __future__ import annotations

from collections.abc import Callable

from gaugeblock.conformance.check import check

DRAWN = 40
SLACK = 1e-9  # seconds: sums of whole numbers in float64


@check(
    "HYB-036",
    feature="placement",
    bound="exact: on drawn chains of up to 8 operators and graphs with residuals of up to 7, the plan takes as long as "
    "the best of all 2^n placements that fit, by a model written down a second time",
)
def test_hyb_036(record_property: Callable[[str, object], None]) -> None:
    """No placement that fits is modelled faster than the plan

    The plan weighs every operator's time at both places against the transfers that it causes. Look at what is left out
    of the sum: a copy to the device, the copy back, a residual, the caller at both ends.
    """
    from gaugeblock.conformance.hybrid.drawn_plans import drawn
    from gaugeblock.fixtures.targets.placement_problems import all_weights, chains, everything, graphs, held, seconds
    from gaugeblock.reference.hybrid import planner
    from gaugeblock.reference.hybrid.profile import Profile

    count = {"split": 0, "plans": 0}

    def optimal(profile: Profile) -> None:
        known = [(seconds(profile, places), held(profile, places), places) for places in everything(profile)]
        full = all_weights(profile) + profile.activation_bytes
        for budget in sorted({full // 3, 2 * full // 3, full}):
            made = planner.plan(profile, budget)
            least, _, best = min((way for way in known if way[1] <= budget), key=lambda way: way[0])
            actual = seconds(profile, dict(made.devices))
            assert actual <= least + SLACK, (
                f"with {budget} bytes the plan takes {actual:g} s, {least:g} s is possible: {best}, not {made.devices}"
            )
            assert abs(made.predicted_seconds - actual) <= SLACK, (
                f"the plan predicts {made.predicted_seconds:g} s, but its operators and transfers take {actual:g}"
            )
            assert made.gap_seconds == 0, f"{len(profile.operators)} operators are not planned exactly"
            assert planner.plan(profile, budget) == made, "the same profile is planned in two ways"
            count["plans"] += 1
            count["split"] += 0 < len(made.on_device) < len(profile.operators)

    drawn(chains(), optimal, DRAWN)
    drawn(graphs(), optimal, DRAWN)
    assert count["split"] > DRAWN, f"{count}: nearly all plans are on one side, nothing was checked"
    record_property("evidence", f"{count['plans']} plans are the best of all, {count['split']} of them on both sides")
