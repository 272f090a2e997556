"""ENG-015: a prompt that is cached whole still answers."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.engine.bounds import WHY, Bound
from gaugeblock.conformance.engine.compare import compare_greedy, greedy, read_cache
from gaugeblock.conformance.engine.evidence import Note
from gaugeblock.conformance.engine.prompts import prose_ids
from gaugeblock.conformance.requires import require
from gaugeblock.fixtures.targets.engine import EngineTarget

TOKENS = 4


@check(
    "ENG-015",
    feature="token-ids",
    bound=f"{WHY}. cached_tokens is below prompt_tokens: the last token must be computed to have logits",
    sources=(
        "https://github.com/vllm-project/vllm/issues/18957",
        "https://github.com/sgl-project/sglang/issues/25091",
    ),
    timeout=60,
)
def test_eng_015(engine: EngineTarget, bound: Bound, note: Note) -> None:
    """A prompt that lies in the cache to its last token still answers, and the same

    The prompt fills its pages exactly; then its own output joins it, so that pages written by decoding are hit. Look
    first at a hit that leaves no token to compute, and at pages that decoding wrote and another step overwrote.
    """
    require(engine, "token-ids", "flush")
    page = engine.page_size
    prompt = prose_ids(engine, "whole", max(2 * page, 16 // page * page))
    engine.flush()
    cold = greedy(engine, prompt, TOKENS)
    worst = 0.0
    for i in range(2):
        again = greedy(engine, prompt, TOKENS)
        hit = read_cache(engine, again, len(prompt) - 1, f"full prefix, repetition {i + 1}")
        assert hit < len(prompt), f"full prefix: cached_tokens {hit} leaves nothing of {len(prompt)} prompt tokens"
        worst = max(worst, compare_greedy(f"full prefix, repetition {i + 1}", again, cold, bound))
    # one token more, so that the page that decoding has just filled may be hit whole
    grown = prompt + greedy(engine, prompt, page).ids + prompt[:1]
    warm = greedy(engine, grown, TOKENS)
    hit = read_cache(engine, warm, len(prompt) + page - 1, "prompt and its own output")
    assert hit < len(grown), f"full prefix: cached_tokens {hit} leaves nothing of {len(grown)} prompt tokens"
    engine.flush()
    worst = max(worst, compare_greedy("prompt and its own output", warm, greedy(engine, grown, TOKENS), bound))
    note(f"full prefix hits: largest logprob difference {worst:.1e} nats")
