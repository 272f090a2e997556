"""PRE-017."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check
from gaugeblock.conformance.prefill.judging import WHY

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.prefill_library import PrefillLibrary

LENGTH = 83
WINDOW = 24
CHUNKS = (WINDOW - 1, WINDOW, WINDOW + 1, 2 * WINDOW, 5)


@check(
    "PRE-017",
    feature="chunked-prefill",
    bound=WHY,
    sources=(
        "https://github.com/pytorch/executorch/issues/21857",
        "https://github.com/huggingface/transformers/issues/37574",
        "https://github.com/pytorch/executorch/pull/20346",
        "https://github.com/Lightning-AI/litgpt/pull/2215",
    ),
)
def test_pre_017(prefill_library: PrefillLibrary, record_property: Callable[[str, object], None]) -> None:
    """A sliding-window model in chunks: each token sees exactly its last W, and nothing behind the window is kept

    Chunks of W - 1, W, W + 1 and 2 W are where it breaks: the ring wraps, a chunk overwrites what its own first tokens
    still see, a mask is off by one. Look at the mask over the ring, and at what is dropped before a chunk.
    """
    from gaugeblock.conformance.prefill.judging import require_same
    from gaugeblock.fixtures.targets.inprocess import mixed_prompt
    from gaugeblock.fixtures.targets.prefill_library import log_rows

    model = prefill_library.sliding(WINDOW)
    prompt = mixed_prompt("sliding", LENGTH)
    wanted = prefill_library.one_shot(model, prompt)
    worst = 0.0
    for chunk in CHUNKS:
        label = f"window of {WINDOW}, chunks of {chunk}"
        sizes = [min(chunk, LENGTH - start) for start in range(0, LENGTH, chunk)]
        result = prefill_library.prefill(model, prompt, chunk)
        assert result.all_logits is not None
        worst = max(worst, require_same(label, log_rows(result.all_logits), wanted, sizes))
        allowed = (WINDOW - 1 + chunk) * prefill_library.token_bytes
        assert result.peak_kv_bytes <= allowed, f"{label}: {result.peak_kv_bytes} bytes of KV, {allowed} are needed"
        assert result.stats.steps >= 2, f"{label}: one step, nothing was checked"
    record_property("evidence", f"{len(CHUNKS)} chunk sizes around the window, largest difference {worst:.1e} nats")
