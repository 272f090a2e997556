"""ENG-036."""

from gaugeblock.conformance.check import check
from gaugeblock.conformance.engine.refusal import must_refuse, must_still_answer
from gaugeblock.fixtures.targets.engine import EngineTarget


@check(
    "ENG-036",
    feature="native-generate",
    bound="status 4xx, never 5xx and never 200; a message in the body",
    sources=("https://github.com/vllm-project/vllm/pull/7746",),
)
def test_eng_036(engine: EngineTarget) -> None:
    """An empty prompt is refused with a message.

    There is no token to predict from: an answer to it was made up. Look at input_ids [], text "", no messages, and
    a body with neither text nor input_ids.
    """
    must_refuse(engine, "input_ids []", "/generate", {"input_ids": [], "sampling_params": {"max_new_tokens": 2}})
    must_refuse(engine, "no prompt", "/generate", {"sampling_params": {"max_new_tokens": 2}})
    must_refuse(engine, "no messages", "/v1/chat/completions", {"model": engine.model, "messages": [], "max_tokens": 2})
    must_still_answer(engine)
