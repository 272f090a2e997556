"""ENG-020."""

from gaugeblock.conformance.check import check
from gaugeblock.fixtures.prompts import FOX, MULTIBYTE
from gaugeblock.fixtures.targets.engine import EngineTarget


@check(
    "ENG-020",
    feature="native-generate",
    bound="exact: the same greedy request twice on one engine, streamed and not; both read the prefix cache",
    sources=("https://github.com/vllm-project/vllm/issues/30099",),
)
def test_eng_020(engine: EngineTarget) -> None:
    """A streamed answer is the same answer.

    The stream and the plain answer to one greedy request differ in text, tokens, finish reason or counts. Look at the
    detokeniser's hold-back (is the tail flushed at the end?) and at what the last event carries.
    """
    for text in (FOX, MULTIBYTE):
        plain = engine.generate(text=text, sampling={"max_new_tokens": 12})
        stream = engine.stream_generate(text=text, sampling={"max_new_tokens": 12})
        final = stream.final
        assert "".join(stream.deltas) == plain.text, f"streamed {''.join(stream.deltas)!r}, plain {plain.text!r}"
        assert final.finish == plain.finish, f"streamed finish {final.finish}, plain {plain.finish}"
        streamed = (final.prompt_tokens, final.completion_tokens)
        counts = (plain.prompt_tokens, plain.completion_tokens)
        assert streamed == counts, f"streamed prompt and completion tokens {streamed}, plain {counts}"
