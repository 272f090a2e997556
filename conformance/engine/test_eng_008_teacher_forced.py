"""ENG-008: what decoding said, prefilling says again."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.engine.bounds import WHY, Bound
from gaugeblock.conformance.engine.compare import compare_logprobs, numbers
from gaugeblock.conformance.engine.evidence import Note
from gaugeblock.conformance.engine.prompts import prose_ids
from gaugeblock.conformance.requires import require
from gaugeblock.fixtures.targets.engine import EngineTarget

LENGTHS = (3, 11, 29)
TOKENS = 12


@check(
    "ENG-008",
    feature="prompt-logprobs",
    bound=WHY,
    sources=(
        "https://github.com/sgl-project/sglang/issues/25790",
        "https://github.com/huggingface/transformers/issues/46741",
    ),
    timeout=60,
)
def test_eng_008(engine: EngineTarget, bound: Bound, note: Note) -> None:
    """Re-prefilling prompt and output gives the output's logprobs again

    Decode and prefill compute the same distribution by two paths; where they part, one of them reads other keys, other
    positions or other weights. Look first at position ids in decode and at the page table of the last page.
    """
    require(engine, "token-ids", "prompt-logprobs")
    prompts = [prose_ids(engine, f"forced{n}", n) for n in LENGTHS]
    sampling = {"max_new_tokens": TOKENS, "ignore_eos": True}
    answers = engine.generate_batch(prompts, sampling=sampling, return_logprob=True)
    worst = 0.0
    for prompt, answer in zip(prompts, answers, strict=True):
        again = engine.generate(
            input_ids=prompt + answer.ids,
            sampling={"max_new_tokens": 1},
            return_logprob=True,
            logprob_start_len=len(prompt) - 1,
        )
        what = f"teacher-forced, prompt of {len(prompt)} tokens"
        forced = numbers((again.input_logprobs or ())[1:], what)
        worst = max(
            worst, compare_logprobs(what, numbers(answer.output_logprobs, what), forced, bound, start=len(prompt))
        )
    note(f"decode against prefill: largest logprob difference {worst:.1e} nats over {len(LENGTHS) * TOKENS} tokens")
