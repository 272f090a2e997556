"""ENG-012: batch-mates change nothing and answers are never mixed."""

from __future__ import annotations

from functools import partial

from gaugeblock.conformance.check import check
from gaugeblock.conformance.engine.bounds import WHY, Bound
from gaugeblock.conformance.engine.compare import compare_greedy, first_line, greedy, greedy_batch
from gaugeblock.conformance.engine.evidence import Note
from gaugeblock.conformance.engine.prompts import prose_ids
from gaugeblock.conformance.requires import require
from gaugeblock.fixtures.targets.answers import Generation
from gaugeblock.fixtures.targets.engine import EngineTarget
from gaugeblock.fixtures.targets.parallel import parallel

LENGTHS = (5, 40, 9, 23, 6, 31)
TOKENS = 5


@check(
    "ENG-012",
    feature="token-ids",
    bound=WHY,
    sources=(
        "https://github.com/vllm-project/vllm/issues/13408",
        "https://github.com/tenstorrent/tt-xla/issues/5940",
        "https://github.com/vllm-project/vllm/issues/31210",
    ),
    timeout=90,
)
def test_eng_012(engine: EngineTarget, bound: Bound, note: Note) -> None:
    """Requests at the same moment answer as each does alone

    Six prompts of different lengths, alone, then in parallel, then in one batch. The message says whose answer a
    request got when it is another's. Look first at padding and masks of the batch, at block tables by batch row, and at
    the slot a finished request leaves behind.
    """
    require(engine, "token-ids", "flush")
    prompts = [prose_ids(engine, f"mates{i}", n) for i, n in enumerate(LENGTHS)]
    engine.flush()
    alone = [greedy(engine, prompt, TOKENS) for prompt in prompts]
    engine.flush()
    together = parallel([partial(greedy, engine, prompt, TOKENS) for prompt in prompts])
    engine.flush()
    batched = greedy_batch(engine, prompts, TOKENS)  # submitted together however slow the client is
    worst = 0.0
    for how, answers in (("in parallel", together), ("in one batch", batched)):
        for i, answer in enumerate(answers):
            what = f"request {i} of {len(prompts)} together, {how}"
            try:
                worst = max(worst, compare_greedy(what, answer, alone[i], bound))
            except AssertionError as error:
                raise AssertionError(f"{first_line(error)}{whose(answer, i, alone)}") from None
    note(f"{len(prompts)} together against alone: largest logprob difference {worst:.1e} nats")


def whose(answer: Generation, own: int, alone: list[Generation]) -> str:
    """Say which other request's answer this is."""
    for j, other in enumerate(alone):
        if j != own and other.ids == answer.ids and other.ids != alone[own].ids:
            return f"; it is the answer of request {j}"
    return ""
