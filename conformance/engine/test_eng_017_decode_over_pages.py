"""ENG-017: decoding across a page boundary."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.engine.bounds import WHY, Bound
from gaugeblock.conformance.engine.compare import compare_logprobs, greedy_batch, numbers
from gaugeblock.conformance.engine.evidence import Note
from gaugeblock.conformance.engine.prompts import prose_ids
from gaugeblock.conformance.requires import require
from gaugeblock.fixtures.targets.engine import EngineTarget

TOKENS = 6


@check(
    "ENG-017",
    feature="prompt-logprobs",
    bound=WHY,
    sources=(
        "https://github.com/vllm-project/vllm/issues/29870",
        "https://github.com/sgl-project/sglang/issues/31427",
    ),
    timeout=60,
)
def test_eng_017(engine: EngineTarget, bound: Bound, note: Note) -> None:
    """Decoding over a page boundary reads every token before it

    Prompts end just before, at and just after a page; their six output tokens are prefilled again from cold. Look first
    at the page taken for the first token behind the boundary and at the slot written for it.
    """
    require(engine, "token-ids", "prompt-logprobs", "flush")
    page = engine.page_size
    sizes = sorted({size for size in (page - 2, page - 1, page, page + 1, 2 * page - 1, 2 * page) if size > 0})
    prompts = [prose_ids(engine, f"boundary{size}", size) for size in sizes]
    engine.flush()
    answers = greedy_batch(engine, prompts, TOKENS)
    engine.flush()
    again = engine.generate_batch(
        [prompt + answer.ids for prompt, answer in zip(prompts, answers, strict=True)],
        sampling={"max_new_tokens": 1},
        return_logprob=True,
        logprob_start_len=0,
    )
    worst = 0.0
    for prompt, answer, forced in zip(prompts, answers, again, strict=True):
        what = f"decode over a page boundary, prompt of {len(prompt)} tokens, page {page}"
        want = numbers((forced.input_logprobs or ())[len(prompt) :], what)
        got = numbers(answer.output_logprobs, what)
        worst = max(worst, compare_logprobs(what, got, want, bound, start=len(prompt)))
    note(f"prompts of {sizes} tokens and {TOKENS} more: largest logprob difference {worst:.1e} nats")
