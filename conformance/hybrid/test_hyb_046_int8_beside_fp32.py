"""HYB-046."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check
from gaugeblock.conformance.hybrid.bounds import RECIPE
from gaugeblock.conformance.hybrid.placements import drawn_placement

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.inprocess import InProcess, Rows
    from gaugeblock.fixtures.targets.inprocess_placed import PlacedTarget

PROMPTS, LENGTH, DRAWN = 6, 96, 3
KL = 1e-6


@check(
    "HYB-046",
    feature="placement",
    bound=f"all on the device: KL from fp32 at most {KL} nats at every position (measured 1.3e-9, the rotations' own "
    f"rounding); nothing there: the bits of INT8; {DRAWN} drawn placements: worst prompt > {RECIPE.worst_prompt}, "
    f"first percentile > {RECIPE.tail} (measured .990 and .957 at least; one matrix not rotated .24 and .0002)",
    sources=(
        "https://github.com/huggingface/transformers/issues/19090",
        "https://github.com/vllm-project/vllm/issues/6765",
        "https://github.com/spcl/QuaRot/issues/70",
    ),
)
def test_hyb_046(
    inprocess: InProcess, placed: PlacedTarget, int8_recipe: InProcess, record_property: Callable[[str, object], None]
) -> None:
    """INT8 matrices on the host and fp32 ones on the device are one model

    The INT8 recipe rotates the stream and the values, so a matrix of the checkpoint beside it speaks another language.
    Look at what the device is given: rotated on the sides that its neighbours are, the last norm before the head, and
    the input of down as it comes.
    """
    from gaugeblock.conformance.similarity import compare, complaints
    from gaugeblock.fixtures.targets.inprocess import held_out_prompts
    from gaugeblock.reference.hybrid import mixed
    from gaugeblock.reference.hybrid.placement import DEVICE, HOST
    from gaugeblock.reference.hybrid.recipe import Recipe

    prompts = held_out_prompts(inprocess.folder, LENGTH, PROMPTS)
    reference = [inprocess.one_shot(prompt) for prompt in prompts]

    def rows(on_device: Collection[str]) -> list[Rows]:
        weights = mixed.with_exact(int8_recipe.weights, inprocess.weights, int8_recipe.config, Recipe(), on_device)
        placement = {name: DEVICE if name in on_device else HOST for name in placed.operators}
        return placed.one_shots(placement, weights, prompts)

    whole = compare(reference, rows(placed.operators))
    assert whole.kl_max.value <= KL, f"with all on the device the KL from fp32 is {whole.kl_max.value:.2g}, not {KL}"
    alone = [int8_recipe.one_shot(prompt) for prompt in prompts]
    same = all((one == other).all() for one, other in zip(alone, rows(()), strict=True))
    assert same, "with nothing on the device the answers are not those of INT8"
    worst = 1.0
    for seed in range(DRAWN):
        there = [name for name, place in drawn_placement(placed.operators, seed).items() if place == DEVICE]
        similarity = compare(reference, rows(there))
        found = complaints(similarity, RECIPE)
        assert not found, f"with {len(there)} operators in fp32 on the device: {'; '.join(found)}"
        worst = min(worst, similarity.worst_prompt.value)
    record_property(
        "evidence", f"all on the device: KL {whole.kl_max.value:.2g}; {DRAWN} mixes: worst prompt {worst:.3f}"
    )
