"""PRE-018."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check
from gaugeblock.conformance.prefill.judging import WHY

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.prefill_library import PrefillLibrary

LENGTH = 60
NEW = 6


@check(
    "PRE-018",
    feature="chunked-prefill",
    bound=WHY,
    sources=(
        "https://github.com/Lightning-AI/litgpt/pull/2215",
        "https://github.com/vllm-project/vllm/issues/31210",
    ),
)
def test_pre_018(prefill_library: PrefillLibrary, record_property: Callable[[str, object], None]) -> None:
    """Decoding goes on from a windowed prefill with all of its KV; a window that would lose KV is refused

    The cache is given to the model's own attention, which needs the whole of it, and to the streaming one. Without a
    tier a window shorter than the prompt has nowhere to put KV: the call must say so, not answer from what is left.
    """
    from gaugeblock.conformance.prefill.judging import require_same
    from gaugeblock.fixtures.targets.inprocess import mixed_prompt
    from gaugeblock.reference.engine.chunked_prefill import PrefillError, chunked_prefill

    text = mixed_prompt("decode", LENGTH + NEW)
    prompt, new = text[:LENGTH], text[LENGTH:]
    model = prefill_library.model
    wanted = prefill_library.one_shot(model, text)[-NEW:]
    for streaming in (False, True):
        with prefill_library.prefill(model, prompt, 16, window=20, offload="host") as result:
            assert result.stats.bytes_out > 0, "nothing left the device, nothing was checked"
            rows = prefill_library.decode(result, new, streaming=streaming)
            label = f"decoding, {'streaming' if streaming else 'own attention'}"
            require_same(label, rows, wanted)
            length = result.cache.get_seq_length()
            assert length == len(text), f"{label}: the cache has {length} tokens, {len(text)} were seen"
    refused = False
    try:
        chunked_prefill(model, list(prompt), 16, window=20)
    except PrefillError as error:
        refused = "offload" in str(error)
    assert refused, "a window of 20 on a prompt of 60 tokens without a tier was not refused: KV is lost in silence"
    record_property("evidence", f"{NEW} tokens decoded with both attentions; the lossy window was refused")
