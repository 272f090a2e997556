"""ENG-029."""

import math

from gaugeblock.conformance.check import check
from gaugeblock.fixtures.prompts import FOX
from gaugeblock.fixtures.targets.engine import EngineTarget

TOP = 5
SLACK = 1e-3  # of a probability; bf16 logits move a probability of one half by less


@check(
    "ENG-029",
    feature="native-generate",
    bound="probabilities sum to at most 1 + 1e-3 (rounding of bf16 logits stays below it); order and membership exact",
    sources=("https://github.com/vllm-project/vllm/issues/29216",),
)
def test_eng_029(engine: EngineTarget) -> None:
    """Logprobs have the right shape, order and normalisation.

    One entry a position, sorted from the likeliest, never positive, summing to at most one; the greedy token heads its
    list with the same value. Look at the offset between tokens and logprobs, and at a softmax taken twice or not at
    all.
    """
    answer = engine.generate(
        text=FOX,
        sampling={"max_new_tokens": 6, "ignore_eos": True},
        return_logprob=True,
        logprob_start_len=0,
        top_logprobs_num=TOP,
    )
    assert answer.output_logprobs is not None, "return_logprob gave no output_token_logprobs"
    assert answer.output_tops is not None, "top_logprobs_num gave no output_top_logprobs"
    assert len(answer.output_logprobs) == len(answer.output_tops) == 6, (
        f"6 tokens, {len(answer.output_logprobs)} logprobs, {len(answer.output_tops)} lists of candidates"
    )
    for position, (chosen, tops) in enumerate(zip(answer.output_logprobs, answer.output_tops, strict=True)):
        assert tops is not None, f"output position {position} has no candidates"
        values = [top.logprob if top.logprob is not None else math.nan for top in tops]
        assert len(tops) == TOP, f"position {position}: {len(tops)} candidates, asked for {TOP}"
        assert values == sorted(values, reverse=True), f"position {position}: candidates not sorted: {values}"
        total = sum(map(math.exp, values))
        assert total <= 1 + SLACK, f"position {position}: candidate probabilities sum to {total:.4f}"
        assert total > 1e-6, f"position {position}: the {TOP} likeliest tokens have probability {total:.2e}"
        assert tops[0] == chosen, f"position {position}: greedy token {chosen} does not head its candidates {tops[0]}"
    assert answer.input_logprobs is not None, "logprob_start_len 0 gave no input_token_logprobs"
    assert len(answer.input_logprobs) == answer.prompt_tokens, (
        f"{answer.prompt_tokens} prompt tokens, {len(answer.input_logprobs)} input logprobs"
    )
    assert answer.input_logprobs[0].logprob is None, f"nothing predicts the first token: {answer.input_logprobs[0]}"
    late = [t for t in answer.input_logprobs[1:] if t.logprob is None or t.logprob > SLACK]
    assert not late, f"prompt logprobs that are none or positive: {late[:3]}"
