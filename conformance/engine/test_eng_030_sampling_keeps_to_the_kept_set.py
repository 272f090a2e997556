"""ENG-030."""

import math

from gaugeblock.conformance.check import check
from gaugeblock.fixtures.prompts import QUESTION
from gaugeblock.fixtures.targets.engine import EngineTarget

SAMPLES = 24
TEMPERATURE = 3.0  # flat enough that an ignored filter shows within the samples


@check(
    "ENG-030",
    feature="multi-sample",
    bound="exact kept set; at temperature 3 and 24 samples an ignored filter stays unseen with p < 1e-3 when the kept "
    "tokens hold under 3/4 of the mass",
    sources=("https://docs.sglang.ai/basic_usage/sampling_params.html",),
)
def test_eng_030(engine: EngineTarget) -> None:
    """Sampling never leaves the set that top-k, top-p and min-p keep.

    A sampled token lies outside the kept set: the filter is ignored, applied before the temperature where it must be
    after, or off by one. The set is computed from the engine's own top logprobs at temperature 3.
    """
    probe = engine.generate(
        text=QUESTION, sampling={"max_new_tokens": 1}, return_logprob=True, top_logprobs_num=20, logprob_start_len=-1
    )
    assert probe.output_tops is not None, "no output_top_logprobs"
    assert probe.output_tops[0] is not None, "no candidates for the first token"
    tops = [(t.token_id, math.exp((t.logprob or 0.0) / TEMPERATURE)) for t in probe.output_tops[0]]
    best = tops[0][1]
    kept = {
        "top_k": (3, {token for token, _ in tops[:3]}),
        "min_p": (0.9, {token for token, weight in tops if weight >= 0.9 * best * (1 - 1e-3)}),
        "top_p": (1e-6, {tops[0][0]}),
    }
    for name, (value, legal) in kept.items():
        sampling = {"temperature": TEMPERATURE, "max_new_tokens": 1, "n": SAMPLES, name: value}
        body = {"text": QUESTION, "sampling_params": sampling, "return_logprob": True}
        seen = {answer.ids[0] for answer in engine.generate_many(body)}
        assert seen <= legal, f"{name}={value}: sampled {sorted(seen - legal)} outside the kept set {sorted(legal)}"
