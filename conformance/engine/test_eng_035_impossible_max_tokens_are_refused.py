"""ENG-035."""

from gaugeblock.conformance.check import check
from gaugeblock.conformance.engine.refusal import must_refuse, must_still_answer
from gaugeblock.fixtures.prompts import FOX
from gaugeblock.fixtures.targets.engine import EngineTarget


@check(
    "ENG-035",
    feature="native-generate",
    bound="status 4xx, never 5xx and never 200; a message in the body",
    sources=("https://docs.sglang.ai/basic_usage/sampling_params.html",),
)
def test_eng_035(engine: EngineTarget) -> None:
    """Negative token limits and sampling values out of range are refused with a message.

    A value that cannot mean anything was accepted. Look at the ranges: max_new_tokens >= 0, temperature >= 0,
    0 < top_p <= 1, top_k -1 or >= 1.
    """
    cases: dict[str, dict[str, float]] = {
        "max_new_tokens -1": {"max_new_tokens": -1},
        "temperature -1": {"temperature": -1},
        "top_p 0": {"top_p": 0},
        "top_p 1.5": {"top_p": 1.5},
        "top_k -7": {"top_k": -7},
        "min_p 2": {"min_p": 2},
    }
    for what, sampling in cases.items():
        must_refuse(engine, what, "/generate", {"text": FOX, "sampling_params": {"max_new_tokens": 2, **sampling}})
    if "completions" in engine.features:
        body = {"model": engine.model, "prompt": FOX, "max_tokens": -1}
        must_refuse(engine, "max_tokens -1", "/v1/completions", body)
    must_still_answer(engine)
