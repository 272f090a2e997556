"""PRE-010."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check
from gaugeblock.conformance.prefill.judging import WHY

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.inprocess import InProcess, Lab

PAGE = 8
NEW = 20
CASES = {  # window, pages of the pool and of the host tier, tokens of the two prompts: both fit, both answers do not
    "nothing below": (None, 9, 0, (30, 26)),
    "a host tier": (None, 9, 8, (30, 26)),
    "a sliding window": (20, 6, 0, (12, 10)),
}


@check(
    "PRE-010",
    feature="chunked-prefill",
    bound=f"token counts: exact. Logprobs: {WHY}",
    sources=(
        "https://github.com/vllm-project/vllm/issues/18957",
        "https://github.com/vllm-project/vllm/issues/29870",
    ),
)
def test_pre_010(inprocess: InProcess, record_property: Callable[[str, object], None]) -> None:
    """A request that was retracted goes on from what the cache holds then, and answers as if nothing had been

    While it waited, its own pages may have been evicted, to be gone or on the host: where it goes on from is a lookup,
    not a memory. Its generated tokens are computed again with the prompt, and what it reports as cached is no more than
    at first. Look at what a retraction resets.
    """
    from gaugeblock.conformance.prefill.judging import require_same
    from gaugeblock.fixtures.targets.inprocess import mixed_prompt

    found: dict[str, int] = {}
    for label, (window, pages, host, lengths) in CASES.items():
        target = inprocess.windowed(window)
        sizes = {"max_total_tokens": pages * PAGE, "host_kv_tokens": host * PAGE}
        lab = target.lab(chunked_prefill_size=16, page_size=PAGE, **sizes)
        prompts = {rid: mixed_prompt(rid, n) for rid, n in zip(("older", "newer"), lengths, strict=True)}
        for rid, prompt in prompts.items():
            lab.add(rid, prompt, new=NEW, logprobs_from=len(prompt) - 1)
        answers = lab.run()
        assert lab.stats().retracted_total, f"{label}: nothing was retracted, nothing was checked"
        found[label] = _resumed(lab, label)
        for rid, answer in answers.items():
            ids = [*answer.prompt, *answer.ids[:-1]]
            wanted = target.one_shot(ids)[len(answer.prompt) - 1 :]
            require_same(f"{label}, {rid} request", answer.rows(lab.vocab), wanted)
            assert answer.hit == 0, f"{label}, {rid} request: {answer.hit} tokens reported as cached, it was the first"
    assert len(set(found.values())) > 1, f"whatever lies below, it went on from the same token: {found}"
    record_property("evidence", f"went on from token {found}")


def _resumed(lab: Lab, label: str) -> int:
    """Return where the newer request went on after its first retraction."""
    at = [number for number, starts in enumerate(lab.scheduler.starts) if "newer" in starts]
    gap = next((n for before, n in pairwise(at) if n > before + 1), None)
    assert gap is not None, f"{label}: the newer request was in every step, nothing was checked"
    return lab.scheduler.starts[gap]["newer"]
