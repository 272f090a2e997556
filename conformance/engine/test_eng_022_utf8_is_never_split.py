"""ENG-022."""

from gaugeblock.conformance.check import check
from gaugeblock.conformance.outcome import inconclusive
from gaugeblock.fixtures.prompts import MULTIBYTE
from gaugeblock.fixtures.targets.engine import EngineTarget

REPLACEMENT = "\ufffd"


@check(
    "ENG-022",
    feature="native-generate",
    bound="exact: no U+FFFD in a stream whose plain answer has none, beyond a last character cut by max_new_tokens",
    sources=("https://github.com/waybarrios/vllm-mlx/pull/109",),
)
def test_eng_022(engine: EngineTarget) -> None:
    """A character split over tokens is never shown in pieces.

    A streamed event carried a replacement character or took text back. Look at the incremental detokeniser: it must
    hold back an incomplete UTF-8 sequence until the token that completes it, and decode from a stable offset.
    """
    plain = engine.generate(text=MULTIBYTE, sampling={"max_new_tokens": 24, "ignore_eos": True})
    if plain.text.isascii():
        inconclusive(f"the model did not continue with multi-byte characters: {plain.text!r}")
    stream = engine.stream_generate(text=MULTIBYTE, sampling={"max_new_tokens": 24, "ignore_eos": True})
    whole = plain.text.rstrip(REPLACEMENT)
    for number, delta in enumerate(stream.deltas[:-1]):
        assert REPLACEMENT not in delta, f"event {number} shows a piece of a character: {delta!r} of {plain.text!r}"
    assert REPLACEMENT not in whole, f"replacement characters inside the answer: {plain.text!r}"
    assert "".join(stream.deltas).rstrip(REPLACEMENT) == whole, "the streamed text differs from the plain one"
