"""ENG-006: special tokens."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.requires import require
from gaugeblock.fixtures.oracle import Oracle
from gaugeblock.fixtures.targets.engine import EngineTarget

FORCE = 100.0  # a logit bias that no model outweighs


@check(
    "ENG-006",
    feature="model-folder",
    bound="exact: token ids, texts and finish reasons",
    sources=(
        "https://github.com/vllm-project/vllm/issues/4180",
        "https://github.com/Blaizzy/mlx-vlm/pull/309",
    ),
    timeout=60,
)
def test_eng_006(engine: EngineTarget, oracle: Oracle) -> None:
    """Special tokens are read, shown, hidden and obeyed as such

    Look first at the end-of-sequence ids (config.json and generation_config.json differ in many folders), at
    ``skip_special_tokens`` in the detokenizer, and at prompts whose special tokens are tokenized as text.
    """
    require(engine, "native-generate", "token-ids", "model-folder")
    specials = oracle.special_tokens
    eos = sorted(oracle.eos_ids)
    if not specials or not eos:
        return
    text = "one" + "two".join(specials)
    want = len(oracle.encode(text))
    got = engine.generate(text=text, sampling={"max_new_tokens": 1}).prompt_tokens
    assert got == want, f"special tokens: {text!r} was counted as {got} tokens, expected {want}"

    forced = {"max_new_tokens": 3, "logit_bias": {str(eos[0]): FORCE}}
    prompt = oracle.encode("Once upon a time")
    for number in eos:
        bias = {"max_new_tokens": 3, "logit_bias": {str(number): FORCE}}
        ended = engine.generate(input_ids=prompt, sampling=bias)
        reason = ended.finish
        assert ended.ids[:1] == (number,), f"special tokens: biased to {number} by {FORCE:g} and got {ended.ids}"
        assert reason is not None
        assert reason.type == "stop", (
            f"special tokens: end-of-sequence token {number} did not end the answer: {ended.ids}, finish {reason}"
        )
        assert len(ended.ids) == 1, f"special tokens: the answer went on after its end-of-sequence token: {ended.ids}"
        assert ended.text == "", f"special tokens: the end-of-sequence token shows in the text: {ended.text!r}"

    kept = engine.generate(input_ids=prompt, sampling={**forced, "ignore_eos": True})
    assert kept.ids == (eos[0],) * 3, f"special tokens: ignore_eos gave {kept.ids}, expected three times {eos[0]}"
    assert kept.finish is not None
    assert kept.finish.type == "length", f"special tokens: ignore_eos ended with {kept.finish}"
    assert kept.text == "", f"special tokens: hidden by default, yet the text is {kept.text!r}"
    shown = engine.generate(input_ids=prompt, sampling={**forced, "ignore_eos": True, "skip_special_tokens": False})
    expected = oracle.decode((eos[0],) * 3, skip_special_tokens=False)
    assert shown.text == expected, (
        f"special tokens: skip_special_tokens=false gave {shown.text!r}, expected {expected!r}"
    )
