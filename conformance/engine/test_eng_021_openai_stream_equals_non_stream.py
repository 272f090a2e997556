"""ENG-021."""

from gaugeblock.conformance.check import check
from gaugeblock.fixtures.prompts import FOX, QUESTION
from gaugeblock.fixtures.targets.engine import EngineTarget


@check(
    "ENG-021",
    feature="chat",
    bound="exact: the same greedy request twice on one engine, streamed and not",
    sources=(
        "https://github.com/ai-dynamo/dynamo/issues/3443",
        "https://github.com/sgl-project/sglang/issues/954",
    ),
)
def test_eng_021(engine: EngineTarget) -> None:
    """Streamed chat and text completions are the same answers, with the same usage.

    Text, finish reason or usage of the stream differ from the plain answer. Look at the first chunk (a role, no text
    lost), the last one (finish_reason once), and the usage chunk that stream_options.include_usage asks for.
    """
    messages = [{"role": "user", "content": QUESTION}]
    pairs = [(engine.chat(messages, max_tokens=8), engine.stream_chat(messages, max_tokens=8))]
    if "completions" in engine.features:
        pairs.append((engine.completion(FOX, max_tokens=8), engine.stream_completion(FOX, max_tokens=8)))
    for plain, stream in pairs:
        assert stream.text() == plain.text, f"streamed {stream.text()!r}, plain {plain.text!r}"
        finish = plain.choices[0].finish
        assert stream.finish() == finish, f"streamed finish {stream.finish()!r}, plain {finish!r}"
        assert stream.usage is not None, "stream_options.include_usage was asked for, but no chunk carried usage"
        assert plain.usage is not None, "the plain answer has no usage"
        streamed = (stream.usage.prompt_tokens, stream.usage.completion_tokens)
        counts = (plain.usage.prompt_tokens, plain.usage.completion_tokens)
        assert streamed == counts, f"streamed usage {streamed}, plain {counts}"
