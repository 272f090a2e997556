"""PRE-013."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check
from gaugeblock.conformance.prefill.judging import WHY

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.prefill_library import PrefillLibrary

LENGTH = 83
CHUNKS = (83, 82, 33, 16, 7)


@check(
    "PRE-013",
    feature="chunked-prefill",
    bound=WHY,
    sources=(
        "https://github.com/huggingface/transformers/issues/43082",
        "https://github.com/huggingface/transformers/issues/46741",
        "https://github.com/vllm-project/vllm/issues/29216",
    ),
)
def test_pre_013(prefill_library: PrefillLibrary, record_property: Callable[[str, object], None]) -> None:
    """A transformers model that is prefilled in chunks gives the logprobs of one call

    The library call runs the model chunk by chunk over a cache of its own. Look at the positions of a chunk, at the
    keys that it sees, and at the row of a chunk's end from which the next chunk's first token is judged.
    """
    import numpy as np

    from gaugeblock.conformance.prefill.judging import FP32_BOUND, require_same
    from gaugeblock.fixtures.targets.inprocess import mixed_prompt
    from gaugeblock.fixtures.targets.prefill_library import log_rows

    prompt = mixed_prompt("library", LENGTH)
    wanted = prefill_library.one_shot(prefill_library.model, prompt)
    of_prompt = wanted[np.arange(LENGTH - 1), list(prompt[1:])]
    worst = 0.0
    for size in CHUNKS:
        result = prefill_library.prefill(prefill_library.model, prompt, size)
        label = f"chunks of {size}"
        steps = -(-LENGTH // size)
        assert result.stats.steps == steps, f"{label}: {result.stats.steps} steps computed, {steps} expected"
        sizes = [min(size, LENGTH - start) for start in range(0, LENGTH, size)]
        assert result.all_logits is not None, f"{label}: logits are missing"
        assert result.prompt_logprobs is not None, f"{label}: logprobs are missing"
        worst = max(worst, require_same(label, log_rows(result.all_logits), wanted, sizes))
        require_same(f"{label}, the last token", log_rows(result.logits[None]), wanted[-1:])
        off = np.abs(result.prompt_logprobs.numpy() - of_prompt)
        where = int(np.argmax(off)) + 1
        assert (off <= FP32_BOUND).all(), (
            f"{label}: the logprob of the prompt token at position {where} is off by {off.max():.3g} nats"
        )
    record_property("evidence", f"{len(CHUNKS)} chunk sizes, largest difference {worst:.1e} nats")
