"""ENG-028."""

from gaugeblock.conformance.check import check
from gaugeblock.fixtures.prompts import FOX, QUESTION
from gaugeblock.fixtures.targets.engine import EngineTarget


@check(
    "ENG-028",
    feature="chat",
    bound="exact counts; one token may end the answer without being shown (eos)",
    sources=(
        "https://github.com/sgl-project/sglang/issues/10012",
        "https://github.com/ggml-org/llama.cpp/pull/27318",
    ),
)
def test_eng_028(engine: EngineTarget) -> None:
    """Usage adds up, and the completion's count is the number of tokens sent.

    total_tokens is not the sum, or completion_tokens differs from the tokens in logprobs.content. Look at whether
    usage is summed over the choices, and at a final token counted twice or not at all.
    """
    answer = engine.chat([{"role": "user", "content": QUESTION}], max_tokens=6, logprobs=True)
    usage = answer.usage
    assert usage is not None, "no usage in the answer"
    total = usage.prompt_tokens + usage.completion_tokens
    assert usage.total_tokens == total, f"total_tokens {usage.total_tokens}, the sum is {total}"
    sent = answer.choices[0].logprobs
    assert sent is not None, "logprobs were asked for, but there are none"
    assert usage.completion_tokens - len(sent) in (0, 1), (
        f"completion_tokens {usage.completion_tokens}, but logprobs for {len(sent)} tokens"
    )
    if "completions" in engine.features and "multi-sample" in engine.features:
        several = engine.completion(FOX, max_tokens=3, n=2, temperature=1, ignore_eos=True).usage
        assert several is not None, "no usage for n = 2"
        assert several.completion_tokens == 6, f"n = 2 × 3 tokens, but completion_tokens {several.completion_tokens}"
