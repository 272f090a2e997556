"""ENG-034."""

from gaugeblock.conformance.check import check
from gaugeblock.conformance.engine.refusal import must_refuse, must_still_answer
from gaugeblock.fixtures.prompts import FOX
from gaugeblock.fixtures.targets.engine import EngineTarget


@check(
    "ENG-034",
    feature="native-generate",
    bound="status 4xx, never 5xx and never 200; a message in the body",
    sources=("https://github.com/sgl-project/sglang/issues/3805",),
)
def test_eng_034(engine: EngineTarget) -> None:
    """A field of the wrong type is refused with a message.

    A wrong type reached the engine (500, a hang, a dead scheduler) or was silently replaced by a default. Look at the
    validation in front of the scheduler: everything behind it may trust its input.
    """
    cases: dict[str, dict[str, object]] = {
        "text a number": {"text": 7},
        "input_ids strings": {"input_ids": ["a", "b"]},
        "sampling_params a string": {"text": FOX, "sampling_params": "greedy"},
        "temperature a string": {"text": FOX, "sampling_params": {"temperature": "hot"}},
        "max_new_tokens a string": {"text": FOX, "sampling_params": {"max_new_tokens": "many"}},
    }
    for what, body in cases.items():
        must_refuse(engine, what, "/generate", body)
    chat = {"model": engine.model, "messages": "hello"}
    must_refuse(engine, "messages a string", "/v1/chat/completions", chat)
    must_still_answer(engine)
