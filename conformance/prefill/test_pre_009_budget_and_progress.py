"""PRE-009."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.inprocess import InProcess, Lab

BUDGET = 12
PAGE = 8
NEW = 5
LENGTHS = {"short": 6, "long": 75, "middle": 37, "one": 1}
HIT = 3 * PAGE


@check(
    "PRE-009",
    feature="chunked-prefill",
    bound="exact: tokens are counted",
    sources=(
        "https://github.com/sgl-project/sglang/issues/36855",
        "https://github.com/sgl-project/sglang/issues/25091",
        "https://github.com/vllm-project/vllm/issues/18957",
    ),
)
def test_pre_009(inprocess: InProcess, record_property: Callable[[str, object], None]) -> None:
    """Steps keep to the budget, a prompt's chunks follow on each other, and no token comes before the last

    Each request computes its tokens once, in order: what the cache did not hold, and each generated token but the last.
    A request that generates is in every step, beside other prompts' chunks. Look at what a finished chunk records, and
    at how the budget is shared.
    """
    from gaugeblock.fixtures.targets.inprocess import mixed_prompt

    steps = 0
    for window in (None, 10):
        lab = inprocess.windowed(window).lab(chunked_prefill_size=BUDGET, page_size=PAGE)
        prompts = {rid: mixed_prompt(rid, length) for rid, length in LENGTHS.items()}
        if window is None:
            lab.ask("earlier", prompts["long"][:HIT])
            prompts["hit"] = (*prompts["long"][:HIT], *mixed_prompt("own", 20))
        for rid, prompt in prompts.items():
            lab.add(rid, prompt, new=NEW, logprobs_from=len(prompt) - 1, tops=False)
        begin = len(lab.scheduler.plans)
        while lab.scheduler.has_work:
            _require_no_early_token(lab, window)
            lab.step()
            assert len(lab.scheduler.plans) < 1000, f"window {window}: no end after 1000 steps"
        steps += len(lab.scheduler.plans) - begin
        for rid, prompt in prompts.items():
            _require_progress(lab, f"window {window}, {rid}", rid, len(prompt))
        _require_shared_budget(lab, window)
        assert window or lab.answers["hit"].hit == HIT, f"a hit of {lab.answers['hit'].hit}, {HIT} tokens are cached"
    record_property("evidence", f"{steps} steps of at most {BUDGET} tokens, every token computed once and in order")


def _require_no_early_token(lab: Lab, window: int | None) -> None:
    for rid, answer in lab.answers.items():
        starts, chunks = lab.starts(rid), lab.chunks(rid)
        done = starts[-1] + chunks[-1] if starts else 0
        assert not answer.ids or done >= len(answer.prompt), (
            f"window {window}, {rid}: a token came with {done} of {len(answer.prompt)} prompt tokens computed"
        )


def _require_progress(lab: Lab, label: str, rid: str, prompt: int) -> None:
    starts, chunks, hit = lab.starts(rid), lab.chunks(rid), lab.answers[rid].hit
    assert len(lab.answers[rid].ids) == NEW, f"{label}: {len(lab.answers[rid].ids)} tokens were generated, not {NEW}"
    assert starts[0] == hit, f"{label}: the first chunk starts at {starts[0]} after a hit of {hit}"
    for number, (start, following) in enumerate(pairwise(starts)):
        end = start + chunks[number]
        assert following == end, f"{label}: chunk {number + 1} ends at {end}, the next one starts at {following}"
    computed = sum(chunks)
    assert computed == prompt - hit + NEW - 1, (
        f"{label}: {computed} tokens were scheduled, {prompt - hit} are not cached and {NEW - 1} generated have KV"
    )


def _require_shared_budget(lab: Lab, window: int | None) -> None:
    plans = lab.scheduler.plans
    full = sum(sum(n for _, n in plan) == BUDGET for plan in plans)
    beside = [plan for plan in plans if any(n == 1 for _, n in plan) and any(n > 1 for _, n in plan)]
    assert full > 5, f"window {window}: {full} of {len(plans)} steps used the whole budget of {BUDGET}"
    assert beside, f"window {window}: no step generated beside a chunk of another prompt"
    at = [number for number, plan in enumerate(plans) if any(rid == "short" for rid, _ in plan)]
    assert at == list(range(at[0], at[0] + NEW)), f"window {window}: the first request waits between its tokens: {at}"
