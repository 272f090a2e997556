"""PRE-005."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check
from gaugeblock.conformance.prefill.judging import WHY

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.inprocess import InProcess

PAGE = 16


@check(
    "PRE-005",
    feature="prefix-cache",
    bound=WHY,
    sources=(
        "https://github.com/LMCache/LMCache/pull/3322",
        "https://github.com/vllm-project/vllm/pull/17999",
        "https://github.com/vllm-project/vllm/issues/18957",
    ),
)
def test_pre_005(inprocess: InProcess, record_property: Callable[[str, object], None]) -> None:
    """A prompt that is wholly cached still computes a token, and a hit changes no logprob

    The next token needs the last one's logits, which no cache holds. Lengths lie at, before and after a page's end.
    Look at the limit of the hit, at positions after it, and at the path that a chunk after a hit takes.
    """
    from gaugeblock.conformance.prefill.judging import require_same
    from gaugeblock.fixtures.targets.inprocess import mixed_prompt

    for length in (3 * PAGE - 1, 3 * PAGE, 3 * PAGE + 1):
        prompt = mixed_prompt("full hit", length)
        wanted = inprocess.one_shot(prompt)
        longer = (*prompt, *mixed_prompt("more", 20)[1:])
        longer_wanted = inprocess.one_shot(longer)
        lab = inprocess.lab(chunked_prefill_size=64, page_size=PAGE)
        lab.ask("cold", prompt)
        full = (length - 1) // PAGE * PAGE
        for rid, tokens, rows in (("again", prompt, wanted), ("longer", longer, longer_wanted)):
            answer = lab.ask(rid, tokens, logprobs_from=len(tokens) - 1)
            label = f"{rid}, prompt of {length}"
            expected = full if rid == "again" else length // PAGE * PAGE
            computed = sum(lab.chunks(rid))
            assert computed >= 1, f"{label}: a full hit computed nothing"
            assert (answer.hit, computed) == (expected, len(tokens) - expected), (
                f"{label}: {answer.hit} tokens from the cache and {computed} computed, "
                f"{expected} and {len(tokens) - expected} expected"
            )
            require_same(f"{label}, after a hit of {answer.hit}", answer.rows(lab.vocab), rows[-1:])
    record_property("evidence", "hits of 32 and 48 tokens, at least one token computed after each")
