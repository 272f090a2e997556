"""ENG-016: nothing of another request's prefix leaks."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.engine.bounds import WHY, Bound
from gaugeblock.conformance.engine.compare import compare_greedy, greedy
from gaugeblock.conformance.engine.evidence import Note
from gaugeblock.conformance.engine.prompts import prose_ids
from gaugeblock.conformance.requires import require
from gaugeblock.fixtures.targets.engine import EngineTarget

TOKENS = 3


@check(
    "ENG-016",
    feature="token-ids",
    bound=f"{WHY}. cached_tokens: at most what the prompts share from their first token on",
    sources=(
        "https://github.com/sgl-project/sglang/issues/4593",
        "https://github.com/LMCache/LMCache/issues/4385",
        "https://github.com/LMCache/LMCache/issues/3301",
        "https://github.com/vllm-project/vllm/issues/12621",
    ),
    timeout=90,
)
def test_eng_016(engine: EngineTarget, bound: Bound, note: Note) -> None:
    """Prompts that differ in one token, early or late, do not read each other's pages

    Each variant is asked with the original in the cache and again cold. Look first at the key of a page (does it cover
    everything before it?), at hashes that collide, and at matching that rounds up to a whole page.
    """
    require(engine, "token-ids", "flush")
    page = engine.page_size
    original = prose_ids(engine, "original", 3 * page + 8)
    spots = sorted({0, 1, page - 1, page, 2 * page - 1, 2 * page, len(original) - 2} - {-1})
    replacement = prose_ids(engine, "Z", 1)[0]
    variants = {at: (*original[:at], replacement, *original[at + 1 :]) for at in spots if original[at] != replacement}
    engine.flush()
    greedy(engine, original, TOKENS)
    warm = {}
    for at, prompt in variants.items():
        warm[at] = greedy(engine, prompt, TOKENS)
        hit = warm[at].cached_tokens or 0
        shared = max(_common(prompt, other) for other in (original, *(variants[a] for a in warm if a != at)))
        assert hit <= shared, (
            f"foreign prefix: {hit} cached_tokens, but the prompt shares only its first {shared} tokens with any before"
            f" (it differs from the first at token {at})"
        )
    worst = 0.0
    for at, prompt in variants.items():
        engine.flush()
        cold = greedy(engine, prompt, TOKENS)
        worst = max(worst, compare_greedy(f"foreign prefix, differing at token {at}", warm[at], cold, bound))
    note(f"variants at {spots}: largest logprob difference {worst:.1e} nats")


def _common(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
