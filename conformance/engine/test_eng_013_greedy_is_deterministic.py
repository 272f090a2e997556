"""ENG-013: greedy is deterministic."""

from __future__ import annotations

from functools import partial

from gaugeblock.conformance.check import check
from gaugeblock.conformance.engine.bounds import WHY, Bound
from gaugeblock.conformance.engine.compare import compare_greedy, greedy
from gaugeblock.conformance.engine.evidence import Note
from gaugeblock.conformance.engine.prompts import prose_ids
from gaugeblock.conformance.requires import require
from gaugeblock.fixtures.targets.engine import EngineTarget
from gaugeblock.fixtures.targets.parallel import parallel

REPEATS = 3
TOKENS = 6


@check(
    "ENG-013",
    feature="token-ids",
    bound=WHY,
    sources=(
        "https://github.com/thinking-machines-lab/tinker-cookbook/issues/198",
        "https://github.com/vllm-project/vllm/issues/6719",
    ),
    timeout=60,
)
def test_eng_013(engine: EngineTarget, bound: Bound, note: Note) -> None:
    """Temperature 0 gives the same answer every time, and the most probable token

    Look first at a temperature of 0 that is replaced by a default, at sampling that goes on under greedy, and at state
    that one request leaves to the next.
    """
    require(engine, "token-ids")
    prompt = prose_ids(engine, "determined", 19)
    first = greedy(engine, prompt, TOKENS)
    answers = [greedy(engine, prompt, TOKENS), *parallel([partial(greedy, engine, prompt, TOKENS)] * REPEATS)]
    worst = max(compare_greedy(f"greedy, repetition {i + 1}", answer, first, bound) for i, answer in enumerate(answers))
    for answer in (first, *answers):
        for step, (chosen, tops) in enumerate(zip(answer.output_logprobs or (), answer.output_tops or (), strict=True)):
            assert tops, f"greedy: no top logprobs at token {step}"
            best = tops[0].logprob
            assert best is not None, f"greedy: the best logprob at token {step} is null"
            assert chosen.logprob is not None, f"greedy: the chosen logprob at token {step} is null"
            assert chosen.logprob >= best - bound.tie, (
                f"greedy: token {step} is {chosen.token_id} at {chosen.logprob:.4f} nats, although "
                f"{tops[0].token_id} has {best:.4f}"
            )
    note(f"{len(answers) + 1} greedy answers: largest logprob difference {worst:.1e} nats")
