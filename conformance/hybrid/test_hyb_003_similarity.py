"""HYB-003."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check
from gaugeblock.conformance.hybrid.bounds import GATE

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.inprocess import InProcess

PROMPTS = 24
LENGTH = 96


@check(
    "HYB-003",
    feature="int8",
    bound=f"next-token overlap with fp32: worst prompt > {GATE.worst_prompt}, first percentile > {GATE.tail}, mean of "
    f"the lowest 1% > {GATE.shortfall}. Measured on the tiny model: plain INT8 .971, .884, .842, the recipe .991, "
    ".965, .955, weights alone .993, .971, .966; scales clipped to 0.9 .930, .761, .652. Cosine is no gate",
    sources=(
        "https://github.com/kvcache-ai/ktransformers/issues/1880",
        "https://github.com/pytorch/pytorch/issues/103646",
    ),
)
def test_hyb_003(inprocess: InProcess, int8: InProcess, record_property: Callable[[str, object], None]) -> None:
    """INT8 next-token distributions overlap with fp32's on every prompt and in the tail

    Teacher-forced on held-out text. The same gate must reject another prompt's logits, else it would pass anything.
    Look at the scales first: a clipped maximum and a wrong granularity cost the tail before they cost the mean.
    """
    from gaugeblock.conformance.similarity import compare, complaints
    from gaugeblock.fixtures.targets.inprocess import held_out_prompts

    prompts = held_out_prompts(inprocess.folder, LENGTH, PROMPTS)
    reference = [inprocess.one_shot(prompt) for prompt in prompts]
    null = complaints(compare(reference, reference), GATE)
    assert not null, f"the gate rejects fp32 against itself: {null}"
    power = complaints(compare(reference, reference[1:] + reference[:1]), GATE)
    assert len(power) == 3, f"the gate does not reject another prompt's logits on all three counts: {power}"
    similarity = compare(reference, [int8.one_shot(prompt) for prompt in prompts])
    record_property("evidence", similarity.describe())
    found = complaints(similarity, GATE)
    assert not found, "INT8 against fp32: " + "; ".join(found)
