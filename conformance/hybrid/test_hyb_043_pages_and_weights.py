"""HYB-043."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check
from gaugeblock.conformance.hybrid.placements import EXACT, PAGE, drawn_placement

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.inprocess import Lab, Rows
    from gaugeblock.fixtures.targets.inprocess_placed import PlacedTarget

SEEDS = range(2)
PROMPTS = ("one", "two", "three", "one", "two")  # of 4 pages each, in a pool of 8: the first ones leave and come back


@check(
    "HYB-043",
    feature="placement",
    bound=EXACT,
    sources=(
        "https://github.com/vllm-project/vllm/pull/56689",
        "https://github.com/vllm-project/vllm/issues/45704",
        "https://github.com/huggingface/transformers/issues/30593",
    ),
)
def test_hyb_043(placed: PlacedTarget, record_property: Callable[[str, object], None]) -> None:
    """Pages that leave both devices and come back, and weights that are loaded again, are the right ones

    A page is all layers, wherever they lie: evicted to the host tier and promoted it must hold the bytes of each. After
    a reload nothing may be computed with the weights of before: look for a copy that the device kept, of a tied head
    first.
    """
    import dataclasses

    import numpy as np

    target = placed.target
    fields = {"page_size": PAGE, "max_total_tokens": 8 * PAGE, "host_kv_tokens": 16 * PAGE}
    negated = dataclasses.replace(
        target.weights,
        embed=-target.weights.embed,
        head=-target.weights.head,
        layers=tuple(dataclasses.replace(layer, down=-layer.down) for layer in target.weights.layers),
    )
    want, wanted_hits = _answers(target.lab(**fields))
    other, _ = _answers(dataclasses.replace(target, weights=negated).lab(**fields))
    promoted = 0
    for seed in SEEDS:
        lab = placed.lab(drawn_placement(placed.operators, seed), None, None, **fields)
        got, hits = _answers(lab)
        assert hits == wanted_hits, f"{hits} tokens of the prompts came from a cache, {wanted_hits} do on the host"
        for number, (name, rows) in enumerate(zip(PROMPTS, want, strict=True)):
            assert np.array_equal(got[number], rows), (
                f"request {number} ({name}, {hits[number]} cached tokens) differs from the host: other KV in its pages"
            )
        promoted += lab.stats().promoted_tokens_total
        lab.flush()
        lab.model.load(negated)
        again, _ = _answers(lab)
        assert all(map(np.array_equal, again, other)), "after a reload the answers are not those of the new weights"
        lab.close()
    assert promoted > 0, "no page came back from the host tier: nothing was checked"
    record_property("evidence", f"{promoted} tokens of KV promoted to {len(SEEDS)} placements, each loaded anew once")


def _answers(lab: Lab) -> tuple[list[Rows], list[int]]:
    """Ask all prompts one after the other: the distributions after the prompt, and the cached tokens of each."""
    import numpy as np

    from gaugeblock.fixtures.targets.inprocess import mixed_prompt

    rows, hits = [], []
    for number, name in enumerate(PROMPTS):
        prompt = mixed_prompt(name, 4 * PAGE)
        answer = lab.ask(str(number), prompt, new=2, logprobs_from=len(prompt) - 1)
        rows.append(
            np.array(
                [
                    [value for value, _ in sorted(event.top_logprobs or [], key=lambda t: t[1])]
                    for event in answer.events
                ]
            )
        )
        hits.append(answer.hit)
    return rows, hits
