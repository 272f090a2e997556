"""PRE-015."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.prefill_library import PrefillLibrary

LENGTH = 110
CASES = ((16, 20), (9, 60), (32, 8))  # chunk, window


@check(
    "PRE-015",
    feature="chunked-prefill",
    bound="KV on the device ≤ (window + chunk) × bytes of a token + 5%, staging included: what the call promises",
    sources=(
        "https://github.com/vllm-project/vllm/issues/55800",
        "https://github.com/LMCache/LMCache/issues/4546",
    ),
)
def test_pre_015(prefill_library: PrefillLibrary, record_property: Callable[[str, object], None]) -> None:
    """A windowed prefill holds (window + chunk) tokens of KV on the device at every step, however long the prompt

    The bytes are counted after every layer, from the tensors that the cache leads to. Look at how the window is
    counted (in tokens), at what is evicted before a chunk, and at the staging buffers.
    """
    from gaugeblock.fixtures.targets.inprocess import mixed_prompt
    from gaugeblock.fixtures.targets.prefill_library import device_bytes_watched

    prompt = mixed_prompt("window", LENGTH)
    most = 0.0
    for chunk, window in CASES:
        seen: list[int] = []
        with device_bytes_watched(prefill_library.model, seen):
            result = prefill_library.prefill(prefill_library.model, prompt, chunk, window=window, offload="host")
        result.close()
        label = f"chunks of {chunk}, window of {window}"
        allowed = (window + chunk) * prefill_library.token_bytes
        assert max(seen) <= 1.05 * allowed, (
            f"{label}: {max(seen)} bytes of KV on the device, {max(seen) / allowed - 1:.0%} above {allowed} bytes"
        )
        assert result.peak_kv_bytes == max(seen), (
            f"{label}: the call reports a peak of {result.peak_kv_bytes} bytes, {max(seen)} were there"
        )
        assert max(result.hot_tokens) <= window + chunk, (
            f"{label}: {max(result.hot_tokens)} tokens of a layer were hot in one step"
        )
        assert result.stats.pieces > 0, f"{label}: all KV stayed on the device, nothing was checked"
        most = max(most, max(seen) / allowed)
    record_property("evidence", f"{len(CASES)} windows, at most {most:.1%} of (window + chunk) tokens")
