"""ENG-009: prompt logprobs against the fp32 oracle."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.engine.bounds import WHY, Bound
from gaugeblock.conformance.engine.compare import compare_logprobs, numbers
from gaugeblock.conformance.engine.evidence import Note
from gaugeblock.conformance.engine.prompts import prose_ids
from gaugeblock.conformance.requires import require
from gaugeblock.fixtures.oracle import Oracle
from gaugeblock.fixtures.targets.engine import EngineTarget

LENGTHS = (2, 17, 60)
TOPS = 5


@check(
    "ENG-009",
    feature="oracle",
    bound=WHY,
    sources=(
        "https://github.com/vllm-project/vllm/issues/9490",
        "https://github.com/vllm-project/vllm/issues/29216",
        "https://github.com/sgl-project/sglang/pull/17395",
    ),
    timeout=90,
)
def test_eng_009(engine: EngineTarget, oracle: Oracle, bound: Bound, note: Note) -> None:
    """Prompt logprobs are those of the model in the folder, computed in fp32

    The weights, the positions or the attention differ from the folder's model when this fails and the rungs below pass.
    Look first at the rope parameters, tied embeddings, norm epsilon, and at logprobs shifted by one position.
    """
    require(engine, "prompt-logprobs", "token-ids", "oracle")
    prompts = [prose_ids(engine, f"oracle{n}", n) for n in LENGTHS]
    answers = engine.generate_batch(
        prompts, sampling={"max_new_tokens": 1}, return_logprob=True, logprob_start_len=0, top_logprobs_num=TOPS
    )
    worst = 0.0
    for prompt, answer in zip(prompts, answers, strict=True):
        what = f"oracle, prompt of {len(prompt)} tokens"
        rows = oracle.logprobs(prompt)  # [tokens, vocab]
        got = answer.input_logprobs or ()
        ids = tuple(t.token_id for t in got)
        assert ids == prompt, f"{what}: input_token_logprobs lists the tokens {ids}, the prompt is {prompt}"
        want = [float(rows[i, token]) for i, token in enumerate(prompt[1:])]
        worst = max(worst, compare_logprobs(what, numbers(got[1:], what), want, bound, start=1))
        for position, tops in enumerate(answer.input_tops or ()):
            if tops:
                best = [float(rows[position - 1, t.token_id]) for t in tops]
                compare_logprobs(f"{what}, top {TOPS} at {position}", numbers(tops, what), best, bound)
        first = answer.ids[0]
        lead = float(rows[-1].max() - rows[-1, first])
        assert lead <= bound.tie, (
            f"{what}: the greedy token is {first}, which the oracle puts {lead:.3g} nats below {int(rows[-1].argmax())}"
        )
    note(f"against transformers in fp32: largest logprob difference {worst:.1e} nats")
