"""PRE-007."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from gaugeblock.conformance.check import check
from gaugeblock.conformance.prefill.judging import FP32_BOUND, WHY

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.inprocess import InProcess

PAGE = 8
LENGTH = 4 * PAGE + 2
NEW = 3
BEHIND = 0.05  # nats by which the window must move some logprob, or its length was of no account
CHUNKS = {  # window: sizes of the chunks under it
    1: (PAGE,),
    PAGE - 1: (PAGE - 1,),
    PAGE: (3, PAGE - 1, PAGE, PAGE + 1, LENGTH),
    PAGE + 1: (PAGE + 2,),
    3 * PAGE: (3 * PAGE + 1,),
    LENGTH: (PAGE + 3,),  # the first generated tokens reach it
    LENGTH + NEW: (PAGE + 3,),  # nothing ever does
}


@check(
    "PRE-007",
    feature="sliding-window",
    bound=f"{WHY}; the window itself moves one by {BEHIND} or more",
    sources=(
        "https://github.com/huggingface/transformers/issues/37574",
        "https://github.com/pytorch/executorch/issues/21857",
        "https://github.com/huggingface/transformers/issues/46741",
    ),
)
def test_pre_007(inprocess: InProcess, record_property: Callable[[str, object], None]) -> None:
    """Under a sliding window each token sees exactly its last W, for any chunk and any W

    Windows lie at, before and after pages, chunks and the prompt's end; chunks are shorter than the window, as long
    and longer, then tokens are generated one at a time. Look at the mask of a chunk's first and last rows, at the
    branch for single tokens, and at the page that is given back while a token of it is still seen.
    """
    from gaugeblock.conformance.prefill.judging import require_same
    from gaugeblock.fixtures.targets.inprocess import mixed_prompt

    prompt = mixed_prompt("window", LENGTH)
    everything = inprocess.one_shot(prompt)
    worst, count = 0.0, 0
    for window, sizes in CHUNKS.items():
        target = inprocess.windowed(window)
        moved = np.abs(target.one_shot(prompt) - everything).max()
        assert moved >= BEHIND if window < LENGTH else moved <= FP32_BOUND, (
            f"a window of {window} moves {moved:.2g} nats"
        )
        for size in sizes:
            lab = target.lab(chunked_prefill_size=size, page_size=PAGE)
            answer = lab.ask("a", prompt, new=NEW)
            label = f"window {window}, chunks of {size}"
            chunks = lab.chunks("a")
            assert sum(chunks) == LENGTH + NEW - 1, (
                f"{label}: {sum(chunks)} tokens were computed, {LENGTH + NEW - 1} are"
            )
            wanted = target.one_shot([*prompt, *answer.ids[:-1]])
            worst = max(worst, require_same(label, answer.rows(lab.vocab), wanted, chunks))
            count += 1
    record_property("evidence", f"{count} pairs of window and chunk, largest difference {worst:.1e} nats")
