"""PRE-008."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check
from gaugeblock.conformance.prefill.judging import WHY

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.inprocess import InProcess, Lab

LENGTH = 110
NEW = 6
CASES = ((16, 24, 8), (13, 7, 4), (3, 15, 16))  # window, chunk, page


@check(
    "PRE-008",
    feature="sliding-window",
    bound=f"pages: exact, those that window - 1 + chunk consecutive tokens can touch. Logprobs: {WHY}",
    sources=(
        "https://github.com/vllm-project/vllm/pull/17999",
        "https://github.com/sgl-project/sglang/issues/38319",
    ),
)
def test_pre_008(inprocess: InProcess, record_property: Callable[[str, object], None]) -> None:
    """Under a sliding window a request holds KV for the window and one chunk, at every step

    A pool of just so many pages must serve a prompt several times as long, each token computed once, with the right
    logprobs: a page given back too early is overwritten at once there. After an abort between any two chunks all pages
    are back. Look at when pages are taken and when those behind the window are let go.
    """
    from gaugeblock.conformance.prefill.judging import require_same
    from gaugeblock.fixtures.targets.inprocess import mixed_prompt

    prompt = mixed_prompt("hot", LENGTH)
    found = []
    for window, chunk, page in CASES:
        target = inprocess.windowed(window)
        label = f"window {window}, chunks of {chunk}, pages of {page}"
        lab = target.lab(chunked_prefill_size=chunk, page_size=page)
        lab.ask("roomy", prompt, new=NEW, logprobs_from=LENGTH - 1, tops=False)
        _require_hot(lab, label, window)
        most = _pages(window, chunk, page)
        assert most * page < LENGTH / 2, f"{label}: {most} pages hold half the prompt, nothing was checked"
        tight = target.lab(chunked_prefill_size=chunk, page_size=page, max_total_tokens=most * page)
        for count in (1, 3):
            tight.add(f"aborted {count}", prompt, logprobs_from=LENGTH - 1, tops=False)
            for _ in range(count):
                tight.step()
            tight.abort(f"aborted {count}")
            _require_returned(tight, f"{label}, abort after chunk {count}")
        answer = tight.ask("tight", prompt, new=NEW, logprobs_from=LENGTH - 1)
        computed = sum(tight.chunks("tight"))
        assert computed == LENGTH + NEW - 1, f"{label}: {computed} tokens were computed in place of {LENGTH + NEW - 1}"
        wanted = target.one_shot([*prompt, *answer.ids[:-1]])[LENGTH - 1 :]
        require_same(f"{label}, in {most} pages", answer.rows(tight.vocab), wanted)
        _require_returned(tight, f"{label}, at rest")
        found.append(f"{most * page} of {LENGTH}")
    record_property("evidence", f"tokens of KV held for a prompt: {', '.join(found)}")


def _pages(window: int, chunk: int, page: int) -> int:
    """Most pages that ``window - 1 + chunk`` consecutive positions touch, wherever they start."""
    return max((start + window + chunk - 2) // page - start // page + 1 for start in range(page))


def _require_hot(lab: Lab, label: str, window: int) -> None:
    page = lab.scheduler.kv.page_size
    for number, (plan, held) in enumerate(zip(lab.scheduler.plans, lab.scheduler.held, strict=True)):
        length = sum(n for _, n in plan)
        most = _pages(window, length, page)
        assert held <= most, (
            f"{label}: step {number + 1}, of {length} tokens, holds {held} pages, window and chunk touch {most} at most"
        )


def _require_returned(lab: Lab, label: str) -> None:
    stats = lab.stats()
    lost = stats.total_tokens - stats.free_tokens - stats.cached_tokens
    assert lost == 0, f"{label}: {lost} of {stats.total_tokens} tokens' pages are leaked"
