"""ENG-004: chat prompts are as long as the folder's template makes them."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.engine.chat_variants import name_count
from gaugeblock.conformance.requires import require
from gaugeblock.fixtures.oracle import Oracle
from gaugeblock.fixtures.targets.engine import EngineTarget

CHATS = (
    [{"role": "user", "content": "Hi"}],
    [{"role": "system", "content": "Answer in one word."}, {"role": "user", "content": "Which colour is the sky?"}],
    [
        {"role": "user", "content": "My name is Ada."},
        {"role": "assistant", "content": "Hello Ada."},
        {"role": "user", "content": "  What is my name?\n"},
    ],
)


@check(
    "ENG-004",
    feature="chat",
    bound="exact: a count of tokens",
    sources=(
        "https://github.com/sgl-project/sglang/pull/888",
        "https://github.com/vllm-project/vllm/pull/27515",
        "https://github.com/instructlab/training/pull/232",
    ),
)
def test_eng_004(engine: EngineTarget, oracle: Oracle) -> None:
    """Chat prompts have the length of the rendered chat template

    A missing or doubled generation prompt or BOS costs quality and shows in no error. The message names the mistake
    that gives the observed count. Look first at the template the server loaded and at a tokenizer call that adds
    special tokens to an already rendered prompt.
    """
    require(engine, "chat", "model-folder")
    for messages in CHATS:
        want = len(oracle.chat_ids(messages))
        usage = engine.chat(messages, max_tokens=1).usage
        assert usage is not None, "chat template: an answer without usage"
        assert usage.prompt_tokens == want, (
            f"chat template: {len(messages)} messages became {usage.prompt_tokens} tokens, the folder's template gives "
            f"{want}: {name_count(oracle, messages, usage.prompt_tokens)}; messages {messages}"
        )
