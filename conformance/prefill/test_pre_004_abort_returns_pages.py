"""PRE-004."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check
from gaugeblock.conformance.prefill.judging import WHY

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.inprocess import InProcess

CHUNKS = 4
CHUNK = 24  # not a multiple of the page: a half-filled page is held at every abort but the second and the fourth
PAGE = 16


@check(
    "PRE-004",
    feature="chunked-prefill",
    bound=f"pages: exact. Afterwards: {WHY}",
    sources=(
        "https://github.com/sgl-project/sglang/issues/38319",
        "https://github.com/sgl-project/sglang/pull/36926",
        "https://github.com/sgl-project/sglang/issues/25091",
    ),
)
def test_pre_004(inprocess: InProcess, record_property: Callable[[str, object], None]) -> None:
    """An abort between two chunks returns every page, and what stays cached is right

    Free and cached pages must make up the pool at rest, and no cached page may be on the free list. Look at what an
    abort does with the pages that the prefix index has taken over.
    """
    from gaugeblock.conformance.prefill.judging import require_same
    from gaugeblock.fixtures.targets.inprocess import mixed_prompt

    prompt = mixed_prompt("abort", CHUNKS * CHUNK + 5)
    other = mixed_prompt("after", len(prompt))
    wanted, other_wanted = inprocess.one_shot(prompt), inprocess.one_shot(other)
    for count in range(1, CHUNKS + 1):
        lab = inprocess.lab(chunked_prefill_size=CHUNK, page_size=PAGE, max_total_tokens=2 * 128)
        lab.add("aborted", prompt)
        for _ in range(count):
            lab.step()
        assert lab.chunks("aborted") == [CHUNK] * count, f"{lab.chunks('aborted')} computed before the abort"
        lab.abort("aborted")
        label = f"abort after chunk {count}"
        finish = lab.answers["aborted"].finish
        assert finish is not None, f"{label}: the request got no last event"
        assert finish.type == "abort", f"{label}: the request ended with {finish}"
        stats = lab.stats()
        assert stats.free_tokens + stats.cached_tokens == stats.total_tokens, (
            f"{label}: {stats.free_tokens} free and {stats.cached_tokens} cached tokens of {stats.total_tokens}: "
            f"{stats.total_tokens - stats.free_tokens - stats.cached_tokens} are leaked"
        )
        require_same(f"{label}, another prompt", lab.ask("other", other).rows(lab.vocab), other_wanted)
        again = lab.ask("again", prompt, logprobs_from=len(prompt) - 1)
        assert again.hit == count * CHUNK // PAGE * PAGE, (
            f"{label}: {again.hit} tokens are cached, {count * CHUNK} were computed"
        )
        require_same(f"{label}, the same prompt", again.rows(lab.vocab), wanted[-1:])
    record_property("evidence", f"aborted after 1 to {CHUNKS} chunks: no page lost")
