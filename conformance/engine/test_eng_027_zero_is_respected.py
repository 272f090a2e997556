"""ENG-027."""

from gaugeblock.conformance.check import check
from gaugeblock.fixtures.prompts import FOX
from gaugeblock.fixtures.targets.engine import EngineTarget


@check(
    "ENG-027",
    feature="native-generate",
    bound="exact: no token at all, and a refusal with 4xx is as good",
    sources=("https://github.com/envoyproxy/gateway/pull/9917",),
)
def test_eng_027(engine: EngineTarget) -> None:
    """An explicit zero is a zero, not a default.

    max_new_tokens 0 generated tokens: somewhere `value or default` swallows the zero. Temperature 0 is held by the
    greedy checks.
    """
    body = {"text": FOX, "sampling_params": {"temperature": 0, "max_new_tokens": 0}}
    reply = engine.post("/generate", body)
    if 400 <= reply.status < 500:
        return
    data = reply.expect(200).json()
    counted = data["meta_info"]["completion_tokens"]
    assert (data["text"], counted) == ("", 0), f"max_new_tokens 0 gave {counted} tokens: {data['text']!r}"
