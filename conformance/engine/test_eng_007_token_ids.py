"""ENG-007: token ids in, token ids out."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.engine.bounds import WHY, Bound
from gaugeblock.conformance.engine.compare import compare_greedy, greedy
from gaugeblock.conformance.engine.prompts import prose, text_ids
from gaugeblock.conformance.requires import require
from gaugeblock.fixtures.oracle import oracle_for
from gaugeblock.fixtures.targets.engine import EngineTarget

TOKENS = 8


@check(
    "ENG-007",
    feature="token-ids",
    bound=f"exact for ids, counts and text; {WHY}",
    sources=(
        "https://github.com/sgl-project/sglang/pull/26555",
        "https://github.com/vllm-project/tpu-inference/issues/936",
    ),
    timeout=60,
)
def test_eng_007(engine: EngineTarget, bound: Bound) -> None:
    """Token ids in and the text they come from give the same token ids out

    Output ids, their logprobs' ids, the count and the text must speak of the same tokens. Look first at the detokenizer
    (a lost or doubled token at the start) and at special tokens added to a prompt that is already token ids.
    """
    require(engine, "token-ids")
    text = prose("tokenids", 12)
    ids = text_ids(engine, text)
    by_ids, by_text = greedy(engine, ids, TOKENS), greedy(engine, text, TOKENS)
    assert by_ids.prompt_tokens == len(ids), (
        f"token ids: {len(ids)} ids were counted as {by_ids.prompt_tokens} prompt tokens"
    )
    assert by_text.prompt_tokens == len(ids), f"token ids: text was {by_text.prompt_tokens} tokens, its ids {len(ids)}"
    compare_greedy("token ids: ids in against text in", by_ids, by_text, bound)
    for answer in (by_ids, by_text):
        assert answer.output_ids is not None, "token ids: the answer has no output_ids"
        listed = tuple(t.token_id for t in answer.output_logprobs or ())
        assert listed == answer.output_ids, f"token ids: output_ids {answer.output_ids}, their logprobs' ids {listed}"
        assert len(answer.output_ids) == answer.completion_tokens, (
            f"token ids: {len(answer.output_ids)} output_ids, completion_tokens {answer.completion_tokens}"
        )
    if "model-folder" in engine.features and engine.folder is not None:
        spelled = oracle_for(engine.folder).decode(by_ids.ids)
        assert by_ids.text == spelled, f"token ids: {by_ids.ids} spell {spelled!r}, the text is {by_ids.text!r}"
