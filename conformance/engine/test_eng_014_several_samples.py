"""ENG-014: n answers to one prompt."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.engine.bounds import WHY, Bound
from gaugeblock.conformance.engine.compare import compare_greedy, greedy
from gaugeblock.conformance.engine.prompts import prose_ids
from gaugeblock.conformance.requires import require
from gaugeblock.fixtures.targets.engine import EngineTarget

N = 3
TOKENS = 6


@check(
    "ENG-014",
    feature="multi-sample",
    bound=f"exact counts; {WHY}. Three samples of 6 tokens at temperature 2 coincide with a probability below 1e-6",
    sources=(
        "https://github.com/lightseekorg/tokenspeed/issues/1613",
        "https://github.com/AstroVela/vane/issues/673",
    ),
    timeout=60,
)
def test_eng_014(engine: EngineTarget, bound: Bound) -> None:
    """n > 1 gives n answers, each right and each its own

    Look first at samples that share a seed or a slot, at fewer answers than asked for, and at usage that counts the
    prompt once a sample.
    """
    require(engine, "multi-sample", "token-ids")
    prompt = prose_ids(engine, "several", 15)
    base = {"input_ids": list(prompt), "return_logprob": True, "top_logprobs_num": 2}
    length = {"max_new_tokens": TOKENS, "ignore_eos": True}
    same = engine.generate_many({**base, "sampling_params": {**length, "temperature": 0, "n": N}})
    assert len(same) == N, f"n={N}: {len(same)} answers came"
    want = greedy(engine, prompt, TOKENS)
    for i, answer in enumerate(same):
        compare_greedy(f"n={N}, greedy answer {i}", answer, want, bound)
        assert answer.prompt_tokens == len(prompt), (
            f"n={N}: answer {i} counts {answer.prompt_tokens} prompt tokens of {len(prompt)}"
        )
    rids = [answer.rid for answer in same]
    assert len(set(rids)) == N, f"n={N}: the answers share request ids: {rids}"
    varied = engine.generate_many({**base, "sampling_params": {**length, "temperature": 2.0, "n": N}})
    assert len(varied) == N, f"n={N} at temperature 2: {len(varied)} answers came"
    outputs = {answer.ids for answer in varied}
    assert len(outputs) > 1, f"n={N} at temperature 2: all answers are {outputs}"
    for i, answer in enumerate(varied):
        assert len(answer.ids) == TOKENS, f"n={N} at temperature 2: answer {i} has {len(answer.ids)} of {TOKENS} tokens"
    if "chat" in engine.features:
        chat = engine.chat([{"role": "user", "content": "Pick a number."}], n=2, max_tokens=2)
        indices = sorted(choice.index for choice in chat.choices)
        assert indices == [0, 1], f"n=2 chat: choices carry the indices {indices}"
