"""ENG-010: a cached prefix changes nothing."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.engine.bounds import WHY, Bound
from gaugeblock.conformance.engine.compare import compare_greedy, greedy, read_cache
from gaugeblock.conformance.engine.evidence import Note
from gaugeblock.conformance.engine.prompts import prose_ids
from gaugeblock.conformance.requires import require
from gaugeblock.fixtures.targets.engine import EngineTarget

TOKENS = 5


@check(
    "ENG-010",
    feature="token-ids",
    bound=f"{WHY}. cached_tokens: at least every whole page but the one that holds the last token",
    sources=(
        "https://github.com/vllm-project/vllm/issues/18957",
        "https://github.com/sgl-project/sglang/issues/26886",
        "https://github.com/huggingface/transformers/issues/46741",
    ),
    timeout=60,
)
def test_eng_010(engine: EngineTarget, bound: Bound, note: Note) -> None:
    """A prefix from the cache gives the answer of a cold engine

    ``cached_tokens`` must really rise, else the check says nothing. Look first at the positions of the tokens after the
    hit, at pages that were freed or overwritten while the index still names them, and at the length of the hit.
    """
    require(engine, "token-ids", "flush")
    prompt = prose_ids(engine, "cached", 2 * engine.page_size + 37)
    extended = prompt + prose_ids(engine, "extended", 9)
    engine.flush()
    cold = greedy(engine, extended, TOKENS)
    assert not cold.cached_tokens, f"cold: {cached(cold)} right after a flush"
    engine.flush()
    first = greedy(engine, prompt, TOKENS)
    assert not first.cached_tokens, f"cold: {cached(first)} right after a flush"
    again = greedy(engine, prompt, TOKENS)
    hit = read_cache(engine, again, len(prompt) - 1, "the same prompt again")
    warm = greedy(engine, extended, TOKENS)
    partial = read_cache(engine, warm, len(prompt) - 1, "the prompt and 9 tokens more")
    engine.flush()
    after = greedy(engine, prompt, 1)
    assert not after.cached_tokens, f"cold again: {cached(after)} right after a flush"
    worst = max(
        compare_greedy(f"cached prefix of {hit} tokens against cold", again, first, bound),
        compare_greedy(f"cached prefix of {partial} tokens, then 9 new ones, against cold", warm, cold, bound),
    )
    note(f"{hit} and {partial} tokens from the cache: largest logprob difference {worst:.1e} nats")


def cached(answer: object) -> str:
    """The count, for a message."""
    return f"cached_tokens is {getattr(answer, 'cached_tokens', None)}"
