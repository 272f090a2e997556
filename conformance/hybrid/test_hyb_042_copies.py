"""HYB-042."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check
from gaugeblock.conformance.hybrid.placements import drawn_placement

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.inprocess_placed import PlacedLab, PlacedTarget, Run
    from gaugeblock.reference.hybrid.operators import Edge

SEEDS = range(4)


@check(
    "HYB-042",
    feature="placement",
    bound="exact: one copy for each edge that crosses, of rows x columns x 4 bytes; ids, rotations, slots and page "
    "tables once a step; logits back. An operator takes the bits that the one before gave, in memory of its own device",
    sources=(
        "https://github.com/pytorch/pytorch/issues/127612",
        "https://github.com/pytorch/pytorch/issues/137878",
        "https://huggingface.co/docs/accelerate/package_reference/big_modeling",
    ),
)
def test_hyb_042(placed: PlacedTarget, record_property: Callable[[str, object], None]) -> None:
    """What crosses between the devices is copied, once, and unchanged

    Counted from the placement and compared with what the device has counted. A copy that shares memory with its source
    changes with it; a residual taken from an earlier move is an old one; an output that always goes home moves twice.
    """
    from gaugeblock.fixtures.targets.inprocess import mixed_prompt
    from gaugeblock.fixtures.targets.inprocess_placed import expected_moves, watched
    from gaugeblock.reference.hybrid.operators import edges

    config = placed.target.config
    copies = 0
    for seed in SEEDS:
        placement = drawn_placement(placed.operators, seed)
        lab = placed.lab(placement)
        lab.add("long", mixed_prompt("copies", 50), new=3)
        lab.add("short", mixed_prompt("more copies", 9), new=4)
        with watched(lab) as witness:
            while lab.scheduler.has_work:
                before = _counted(lab)
                lab.step(32)
                runs, batch = witness.take()
                by_name = {run.operator: run for run in runs}
                for edge in edges(config):
                    _hold_edge(edge, by_name, crosses=placement[edge.producer] != placement[edge.consumer])
                moves = expected_moves(config, placement, batch)
                wanted = (len(moves.arrived), sum(moves.arrived), len(moves.left), sum(moves.left))
                moved = tuple(now - then for now, then in zip(_counted(lab), before, strict=True))
                assert moved == wanted, (
                    f"a step made {moved[0]} copies of {moved[1]} bytes to the device and {moved[2]} of {moved[3]} "
                    f"back; the placement asks for {wanted[0]} of {wanted[1]} and {wanted[2]} of {wanted[3]}"
                )
                copies += moved[0] + moved[2]
        lab.close()
    assert copies > 100, f"{copies} copies in all: nothing was checked"
    record_property("evidence", f"{copies} copies, all of the counted size, in memory of their own")


def _counted(lab: PlacedLab) -> tuple[int, int, int, int]:
    arrived, left = lab.device.ledger.arrived, lab.device.ledger.left
    return arrived.copies, arrived.nbytes, left.copies, left.nbytes


def _hold_edge(edge: Edge, runs: Mapping[str, Run], *, crosses: bool) -> None:
    from gaugeblock.fixtures.targets.inprocess_placed import memory, same_bits

    index, value = int(edge.residual), "residual" if edge.residual else "value"
    given, taken = runs[edge.producer].gave[index], runs[edge.consumer].took[index]
    assert taken is not None, f"{edge.consumer} took no {value} from {edge.producer}"
    assert same_bits(given, taken), f"{edge.consumer} took another {value} than {edge.producer} gave"
    shared = given.numel() > 0 and memory(given) == memory(taken)
    assert not (crosses and shared), (
        f"the {value} from {edge.producer} to {edge.consumer} crosses and shares its memory: "
        "what is changed on one device changes on the other"
    )
