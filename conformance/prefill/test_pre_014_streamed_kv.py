"""PRE-014."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check
from gaugeblock.conformance.prefill.judging import WHY

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.prefill_library import PrefillLibrary

LENGTH = 83
CASES = ((16, 20, "host"), (11, 30, "host"), (16, 1, "host"), (16, 20, "folder"))  # chunk, window, tier


@check(
    "PRE-014",
    feature="chunked-prefill",
    bound=WHY,
    sources=(
        "https://github.com/sgl-project/sglang/issues/40903",
        "https://github.com/vllm-project/vllm/pull/52796",
        "https://github.com/vllm-project/vllm/issues/53498",
        "https://github.com/vllm-project/vllm/pull/54288",
    ),
)
def test_pre_014(
    prefill_library: PrefillLibrary, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """A hot window with the older KV streamed back is still attention to everything

    Each token attends to the hot KV and, piece by piece, to what has left the device; the parts are merged by their
    log-sum-exp. Look at the merging (its weights, the base of its logarithm), at pieces that are left out, and at the
    token between hot and cold, which counts once.
    """
    from gaugeblock.conformance.prefill.judging import require_same
    from gaugeblock.fixtures.targets.inprocess import mixed_prompt
    from gaugeblock.fixtures.targets.prefill_library import log_rows

    prompt = mixed_prompt("streamed", LENGTH)
    wanted = prefill_library.one_shot(prefill_library.model, prompt)
    worst, pieces = 0.0, 0
    for chunk, window, tier in CASES:
        offload = "host" if tier == "host" else tmp_path
        label = f"chunks of {chunk}, window of {window}, {tier}"
        sizes = [min(chunk, LENGTH - start) for start in range(0, LENGTH, chunk)]
        with prefill_library.prefill(prefill_library.model, prompt, chunk, window=window, offload=offload) as result:
            stats = result.stats
            assert result.all_logits is not None
            worst = max(worst, require_same(label, log_rows(result.all_logits), wanted, sizes))
            assert stats.steps >= 2, f"{label}: one step, nothing was checked"
            assert stats.bytes_out > 0, f"{label}: nothing left the device, nothing was checked"
            assert min(stats.pieces, stats.bytes_in) > 0, f"{label}: nothing came back, nothing was checked"
            pieces += stats.pieces
    record_property("evidence", f"{pieces} pieces streamed back, largest difference {worst:.1e} nats")
