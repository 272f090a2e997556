"""ENG-038."""

from gaugeblock.conformance.check import check
from gaugeblock.conformance.engine.refusal import must_refuse, must_still_answer
from gaugeblock.fixtures.targets.engine import EngineTarget

NAME = "gaugeblock/no-such-model"


@check(
    "ENG-038",
    feature="chat",
    level="extended",
    bound="status 404 or another 4xx; a message in the body",
    sources=("https://github.com/sgl-project/sglang/issues/31404",),
)
def test_eng_038(engine: EngineTarget) -> None:
    """An unknown model is refused, not answered by whatever is loaded.

    A client that misspells a model, or reaches the wrong replica, gets another model's answer as if all were well.
    """
    body = {"model": NAME, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
    must_refuse(engine, f"model {NAME!r}", "/v1/chat/completions", body)
    reply = engine.get(f"/v1/models/{NAME}")
    assert reply.status == 404, f"/v1/models/{NAME}: expected 404, got {reply.shown}"
    must_still_answer(engine)
