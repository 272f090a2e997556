"""HYB-044."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check
from gaugeblock.conformance.hybrid.placements import drawn_placement

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.inprocess_placed import PlacedTarget

SEEDS = range(6)


@check(
    "HYB-044",
    feature="placement",
    bound="exact: the bytes of weights and KV that lie on the device, counted by looking at the tensors; a shared one "
    "once. As many are a sufficient budget, one fewer is not",
    sources=(
        "https://github.com/ggml-org/llama.cpp/issues/4315",
        "https://github.com/lmstudio-ai/lmstudio-bug-tracker/issues/542",
    ),
)
def test_hyb_044(placed: PlacedTarget, record_property: Callable[[str, object], None]) -> None:
    """What lies on the device is counted to the byte, held to its budget and given back

    A budget that forgets the KV ends in an error of the allocator in the middle of somebody's request. What does not
    fit is refused before anything is computed, by a line that names the operator, its bytes and the budget.
    """
    from gaugeblock.fixtures.targets.inprocess import mixed_prompt
    from gaugeblock.fixtures.targets.inprocess_placed import held_bytes
    from gaugeblock.reference.hybrid.devices import PretendDevice

    largest = 0
    for seed in SEEDS:
        placement = drawn_placement(placed.operators, seed)
        lab = placed.lab(placement)
        counted, found = lab.device.ledger.total, held_bytes(lab)
        assert counted == found, f"{counted} bytes are counted on the device, {found} lie there"
        lab.ask("one", mixed_prompt("ledger", 40), new=2)
        assert lab.device.ledger.total == counted, "a request changed the count of what the device holds for good"
        lab.close()
        left = lab.device.ledger.held
        assert not left, f"after the end {sum(left.values())} bytes are counted on the device, of {', '.join(left)}"
        assert held_bytes(lab) == 0, f"after the end {held_bytes(lab)} bytes of weights and KV lie on the device"

        fits = placed.lab(placement, PretendDevice(counted))
        assert fits.device.ledger.total == counted, "a budget that is just enough changed what the device holds"
        fits.close()
        for budget in (counted - 1, counted // 8):
            _hold_refusal(placed, placement, budget)
        largest = max(largest, counted)
    record_property("evidence", f"{len(SEEDS)} placements of up to {largest / 2**20:.1f} MiB, exact, returned to zero")


def _hold_refusal(placed: PlacedTarget, placement: dict[str, str], budget: int) -> None:
    from gaugeblock.fixtures.errors import TargetFault
    from gaugeblock.reference.hybrid.devices import PretendDevice

    device = PretendDevice(budget)
    try:
        placed.lab(placement, device)
    except TargetFault as refusal:
        said = str(refusal)
    else:
        raise AssertionError(f"a placement of more bytes was accepted by a device with a budget of {budget}")
    named = next((name for name in placed.operators if f"{name} needs" in said), "none")
    assert placement.get(named) == "device", f"no operator of the device is named by: {said}"
    assert f"budget of {budget}" in said, f"the budget of {budget} is not named by: {said}"
    moved = device.ledger.arrived.copies
    assert named.endswith("attention") or not moved, f"{moved} weights were moved before {named} was refused"
