"""PRE-016."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.inprocess import Rows
    from gaugeblock.fixtures.targets.prefill_library import PrefillLibrary

LENGTH = 70
CASES = ((16, 20), (9, 30))  # chunk, window


@check(
    "PRE-016",
    feature="chunked-prefill",
    bound="identical bytes: the same sums in the same order, wherever the copies run",
    sources=(
        "https://github.com/vllm-project/vllm/issues/45704",
        "https://github.com/vllm-project/vllm/issues/29870",
    ),
)
def test_pre_016(prefill_library: PrefillLibrary, record_property: Callable[[str, object], None]) -> None:
    """Copies in line, beside the computation, or as late as they may be: the same bytes

    The delayed run carries out a copy only when somebody waits for it, so what is read, or overwritten, without
    waiting shows every time. Look at the first layer that differs: KV that left before it was written or after it was
    overwritten, a staging buffer that was read too early or filled again too early.
    """
    from gaugeblock.conformance.prefill.judging import require_same
    from gaugeblock.fixtures.targets.inprocess import mixed_prompt
    from gaugeblock.fixtures.targets.prefill_library import kv_digests, log_rows

    prompt = mixed_prompt("overlap", LENGTH)
    oracle = prefill_library.one_shot(prefill_library.model, prompt)
    moved = 0
    for chunk, window in CASES:
        first: tuple[Rows, list[tuple[bytes, ...]]] | None = None
        for overlap in (False, True, "delayed"):
            label = f"chunks of {chunk}, window of {window}, overlap={overlap}"
            with prefill_library.prefill(
                prefill_library.model, prompt, chunk, window=window, offload="host", overlap=overlap
            ) as result:
                assert result.all_logits is not None
                rows, kv = log_rows(result.all_logits), kv_digests(result)
                assert min(result.stats.pieces, result.stats.bytes_out) > 0, f"{label}: nothing moved"
                moved += result.stats.bytes_in + result.stats.bytes_out
            require_same(label, rows, oracle)
            if first is None:
                first = (rows, kv)
            wrong = [number for number, pair in enumerate(kv) if pair != first[1][number]]
            assert not wrong, f"{label}: KV of layers {wrong} is not that of the run without overlap"
            assert (rows == first[0]).all(), f"{label}: logits are not those of the run without overlap"
    record_property("evidence", f"{moved} bytes moved by three kinds of lanes, identical KV and logits")
