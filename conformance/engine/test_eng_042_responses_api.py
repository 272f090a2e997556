"""ENG-042."""

from gaugeblock.conformance.check import check
from gaugeblock.fixtures.prompts import QUESTION
from gaugeblock.fixtures.targets.engine import EngineTarget
from gaugeblock.fixtures.targets.fields import take


@check(
    "ENG-042",
    feature="responses",
    level="extended",
    bound="exact: the greedy answer of chat for the same message",
    sources=("https://platform.openai.com/docs/api-reference/responses",),
)
def test_eng_042(engine: EngineTarget) -> None:
    """/v1/responses answers as chat does.

    The Responses API rendered another prompt than chat, lost the text, or counts otherwise. Look at whether both go
    through one template and one generation.
    """
    chat = engine.chat([{"role": "user", "content": QUESTION}], max_tokens=6)
    body = {"model": engine.model, "input": QUESTION, "max_output_tokens": 6, "temperature": 0}
    reply = engine.post("/v1/responses", body).expect(200)
    data = reply.json()
    messages = [item for item in take(data, "output", list, reply.url) if item.get("type") == "message"]
    text = "".join(part.get("text", "") for item in messages for part in item.get("content", []))
    assert text == chat.text, f"/v1/responses gave {text!r}, chat gave {chat.text!r}"
    usage = take(data, "usage", dict, reply.url)
    prompt = usage.get("input_tokens", usage.get("prompt_tokens"))
    assert chat.usage is not None, "chat gave no usage"
    assert prompt == chat.usage.prompt_tokens, f"{prompt} prompt tokens, chat counts {chat.usage.prompt_tokens}"
