"""HYB-041."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check
from gaugeblock.conformance.hybrid.placements import drawn_placement

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.inprocess_placed import PlacedTarget

SEEDS = range(4)


@check(
    "HYB-041",
    feature="placement",
    bound="exact: each operator once a step, with tensors of the device that the placement names and of no other",
    sources=(
        "https://github.com/CreativeMayhemLtd/provcheck/issues/32",
        "https://github.com/huggingface/accelerate/issues/3584",
    ),
)
def test_hyb_041(placed: PlacedTarget, record_property: Callable[[str, object], None]) -> None:
    """Every operator runs where it was placed, once a step

    Seen from below: where the tensors lie of every call of torch that an operator makes. An operator that has no kernel
    on a device falls back to the host, and nobody is told; or devices are given out in another order than the names.
    """
    from gaugeblock.fixtures.targets.inprocess import mixed_prompt
    from gaugeblock.fixtures.targets.inprocess_placed import watched

    names, steps = placed.operators, 0
    for seed in SEEDS:
        placement = drawn_placement(names, seed)
        lab = placed.lab(placement)
        lab.add("watched", mixed_prompt("where", 40), new=2)
        with watched(lab) as witness:
            while lab.scheduler.has_work:
                lab.step(30)
                runs, _ = witness.take()
                steps += 1
                counts = Counter(run.operator for run in runs)
                wrong = [f"{name} {counts[name]} times" for name in names if counts[name] != 1]
                assert not wrong, f"in one step there ran {', '.join(wrong[:3])}, wanted is once"
                for run in runs:
                    where = " and ".join(sorted(run.places)) or "nowhere"
                    assert run.places == {placement[run.operator]}, (
                        f"{run.operator} is placed on the {placement[run.operator]} and computed on the {where}"
                    )
        lab.close()
    assert steps == 3 * len(SEEDS), (
        f"{steps} steps instead of two chunks and a decode for each of {len(SEEDS)} placements"
    )
    record_property("evidence", f"{steps * len(names)} runs of operators in {steps} steps, all where they were placed")
