"""HYB-035."""

from __future__ import annotations

from collections.abc import Callable

from gaugeblock.conformance.check import check

DRAWN = 30
SLACK = 1e-9  # seconds: sums of whole numbers in float64


@check(
    "HYB-035",
    feature="placement",
    bound="exact: on drawn graphs, one more byte of budget never makes the predicted latency of the best plan longer, "
    "and no plan is slower than everything on the host",
)
def test_hyb_035(record_property: Callable[[str, object], None]) -> None:
    """More device memory is never predicted to be slower

    Whatever fits into less fits into more. A planner that takes the longest operators as they fit breaks this: a large
    one that fits at last keeps better ones out, or makes two transfers of none.
    """
    from gaugeblock.conformance.hybrid.drawn_plans import drawn
    from gaugeblock.fixtures.targets.placement_problems import all_weights, graphs
    from gaugeblock.reference.hybrid import planner
    from gaugeblock.reference.hybrid.profile import Profile

    gains = [0]

    def monotone(profile: Profile) -> None:
        before = planner.plan(profile, 0, "cpu").predicted_seconds
        for budget in range(all_weights(profile) + profile.activation_bytes + 1):
            seconds = planner.plan(profile, budget).predicted_seconds
            assert seconds <= before + SLACK, f"{budget} bytes are predicted to take {seconds:g} s, fewer {before:g}"
            gains[0] += seconds < before - SLACK
            before = seconds

    drawn(graphs(), monotone, DRAWN)
    assert gains[0] > DRAWN, f"memory helps {gains[0]} times: nothing was checked"
    record_property("evidence", f"{DRAWN} graphs, {gains[0]} budgets at which the plan gets faster")
