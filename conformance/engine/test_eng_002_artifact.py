"""ENG-002: the served artifact is the one in the folder."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.requires import require
from gaugeblock.fixtures.oracle import Oracle
from gaugeblock.fixtures.targets.engine import EngineTarget


@check(
    "ENG-002",
    feature="model-folder",
    bound="exact, but a server may serve a shorter context than the model was made for",
    sources=(
        "https://github.com/vllm-project/vllm/pull/44286",
        "https://github.com/vllm-project/vllm/issues/3676",
    ),
)
def test_eng_002(engine: EngineTarget, oracle: Oracle) -> None:
    """Model information agrees with the model folder

    The rung below all others: another architecture, a context longer than the positions the model was made for, or a
    vocabulary of another size. Look first at which folder the server loaded and at overrides of its context length.
    """
    require(engine, "model-folder")
    served = engine.probed.context_length
    assert served is None or 0 < served <= oracle.context_length, (
        f"artifact: the server promises a context of {served} tokens, the model was made for {oracle.context_length}"
    )
    if engine.dialect != "sglang":
        return
    info = engine.model_info()
    for name in ("model_type", "architectures"):
        if info.get(name) is not None:
            assert info[name] == oracle.config.get(name), (
                f"artifact: the server loaded {name} {info[name]!r}, the folder says {oracle.config.get(name)!r}"
            )
    assert info.get("is_generation") is True, f"artifact: is_generation is {info.get('is_generation')!r}"
    last = oracle.vocab_size - 1
    answer = engine.generate(input_ids=[last], sampling={"max_new_tokens": 1})
    assert answer.prompt_tokens == 1, (
        f"artifact: token {last}, the last of the vocabulary, was counted as {answer.prompt_tokens} prompt tokens"
    )
