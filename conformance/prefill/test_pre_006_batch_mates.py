"""PRE-006."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check
from gaugeblock.conformance.prefill.judging import WHY

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.inprocess import InProcess

NEW = 4
LENGTHS = (5, 16, 17, 40, 70)


@check(
    "PRE-006",
    feature="chunked-prefill",
    bound=WHY,
    sources=("https://github.com/vllm-project/vllm/issues/31210",),
)
def test_pre_006(inprocess: InProcess, record_property: Callable[[str, object], None]) -> None:
    """Batch-mates change nothing: prefills beside decodes, and a mate that shares pages

    Look at padded block tables and masks of sequences of different length, and at pages that two requests hold.
    """
    from gaugeblock.conformance.prefill.judging import require_same
    from gaugeblock.fixtures.targets.inprocess import mixed_prompt

    prompts = {f"alone {n}": mixed_prompt(f"mate {n}", n) for n in LENGTHS}
    prompts["shares"] = (*prompts["alone 70"][:60], *mixed_prompt("own end", 12)[1:])
    lab = inprocess.lab(chunked_prefill_size=24, page_size=16)
    for rid, prompt in prompts.items():
        start = 0 if rid != "shares" else len(prompt) - 1  # else it may not read the cache
        lab.add(rid, prompt, new=NEW, logprobs_from=start)
    answers = lab.run()
    mixed = sum(len(plan) > 1 for plan in lab.scheduler.plans)
    beside = sum(1 in (sizes := [n for _, n in plan]) and max(sizes) > 1 for plan in lab.scheduler.plans)
    assert mixed > 2, f"only {mixed} of {len(lab.scheduler.plans)} steps had more than one request: nothing was checked"
    assert beside, "no step had a prefill beside a decode: nothing was checked"
    assert answers["shares"].hit >= 16, f"the shared prefix gave a hit of {answers['shares'].hit}: nothing was checked"
    worst = 0.0
    for rid, answer in answers.items():
        assert len(answer.ids) == NEW, f"{rid}: {len(answer.ids)} tokens instead of {NEW}"
        wanted = inprocess.one_shot([*answer.prompt, *answer.ids[:-1]])
        rows = answer.rows(lab.vocab)
        worst = max(worst, require_same(f"{rid}, in a batch", rows, wanted[len(wanted) - len(rows) :]))
    record_property("evidence", f"{mixed} shared steps, largest difference {worst:.1e} nats")
