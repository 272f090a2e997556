"""HYB-004."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check
from gaugeblock.conformance.hybrid.bounds import MATES_OVERLAP

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.inprocess import InProcess
    from gaugeblock.fixtures.targets.int8_target import Int8Target

PROMPTS = 6


@check(
    "HYB-004",
    feature="int8",
    bound="a product's row: exact, since integer sums have no order. A request: lowest overlap above "
    f"{MATES_OVERLAP}, because another order of fp32 sums around the products can move a value over a rounding edge "
    "(seen: .949 between two right orders; one scale for the whole batch gives .01)",
    sources=("https://github.com/thinking-machines-lab/batch_invariant_ops",),
)
def test_hyb_004(int8: InProcess, int8_linear: Int8Target, record_property: Callable[[str, object], None]) -> None:
    """A request's INT8 result does not depend on its batch-mates

    One scale for a whole batch of activations makes a quiet request coarse when a loud one comes along. Look at the
    dimension over which the maximum is taken.
    """
    import torch

    from gaugeblock.conformance.similarity import compare
    from gaugeblock.fixtures.targets.inprocess import held_out_prompts, target_call

    generator = torch.Generator().manual_seed(4)
    x, weight = (torch.randn(rows, 256, generator=generator) for rows in (9, 64))
    x *= 10.0 ** torch.linspace(-2, 2, 9)[:, None]  # quiet and loud rows
    with target_call("the INT8 product"):
        matrix = int8_linear.quantize(weight)
        together = int8_linear.linear(x, matrix)
        alone = torch.cat([int8_linear.linear(row[None], matrix) for row in x])
    rows = (together != alone).any(dim=1).nonzero().flatten().tolist()
    assert not rows, f"rows {rows} of a product change with the other rows of the batch"

    prompts = held_out_prompts(int8.folder, 64, PROMPTS)
    lab = int8.lab(chunked_prefill_size=PROMPTS * 64)
    for number, prompt in enumerate(prompts):
        lab.add(str(number), prompt)
    answers = lab.run()
    largest = max(len(plan) for plan in lab.scheduler.plans)
    assert largest == PROMPTS, f"at most {largest} of {PROMPTS} requests shared a step: nothing was checked"
    batched = [answers[str(number)].rows(lab.vocab) for number in range(PROMPTS)]
    single = [int8.lab(chunked_prefill_size=64).ask("alone", prompt).rows(lab.vocab) for prompt in prompts]
    lowest = compare(single, batched).lowest
    assert lowest.value > MATES_OVERLAP, (
        f"prompt {lowest.prompt} overlaps with itself by {lowest.value:.4f} only at position {lowest.position} "
        f"when {PROMPTS} requests share a step"
    )
    record_property("evidence", f"9 rows equal in every bit, lowest overlap of {PROMPTS} requests {lowest.value:.4f}")
