"""HYB-031."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.pretend_devices import PretendDevices

SLACK = 1e-9  # float64 sums of seconds


@check(
    "HYB-031",
    feature="placement",
    bound="by an injected clock, exact to 1e-9: each operator's seconds are rows × its cost at the place, of calls "
    "after the warm-up; without instruments all of them are the whole pass",
    sources=("https://docs.pytorch.org/docs/stable/notes/cuda.html#asynchronous-execution",),
)
def test_hyb_031(pretend: type[PretendDevices], record_property: Callable[[str, object], None]) -> None:
    """An operator's time is that of its own work, on its own input, once warm

    A device works on its own: a clock that is read before it is done times the hand-over, one that is started while it
    is busy times its neighbour. Look at the synchronisation before and after each call, at the calls that are counted,
    and at the input with which an operator is called.
    """
    from gaugeblock.fixtures.targets.pretend_devices import ROWS, Costed, Model, model_input

    world = pretend()
    model = Model(world)
    profile = world.profile(model, (model_input(),))
    waits = world.waits
    costed = {name: sub for name, sub in model.named_modules() if isinstance(sub, Costed)}
    assert set(profile.by_name) == set(costed), f"operators {sorted(profile.by_name)} instead of {sorted(costed)}"
    for place in ("host", "device"):
        for name, sub in costed.items():
            rows = 1 if name == "head" else ROWS  # the layer before the head leaves one row
            expected, actual = rows * sub.costs[place], profile.by_name[name].seconds(place)
            assert abs(actual - expected) <= SLACK, (
                f"{name} on the {place} takes {actual:g} s instead of {expected:g}, {rows} × {sub.costs[place]:g}"
            )
        whole = profile.whole[place].median
        parts = sum(profile.cost(name, place) for name in costed)
        assert abs(parts - whole) <= SLACK * whole, f"on the {place} the parts are {parts:g} s of {whole:g}"
    assert waits > 2 * len(costed), f"{waits} waits for {len(costed)} operators: nothing was timed"
    record_property("evidence", f"{len(costed)} operators on two places to {SLACK:g} s, {waits} waits")
