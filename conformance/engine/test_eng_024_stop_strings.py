"""ENG-024."""

from gaugeblock.conformance.check import check
from gaugeblock.conformance.outcome import inconclusive
from gaugeblock.fixtures.prompts import FOX
from gaugeblock.fixtures.targets.engine import EngineTarget


@check(
    "ENG-024",
    feature="native-generate",
    bound="exact: the answer is the unstopped greedy answer up to the stop string",
    sources=(
        "https://github.com/mzau/mlx-knife/issues/68",
        "https://github.com/vllm-project/vllm/issues/3574",
    ),
)
def test_eng_024(engine: EngineTarget) -> None:
    """A stop string ends the answer, is named, and is not shown, streamed or not.

    The stop string was missed when it spans tokens, was left in the text, leaked into a stream before it was complete,
    or the finish reason does not name it. Look at the match over the tail of the text, not over single tokens.
    """
    free = engine.generate(text=FOX, sampling={"max_new_tokens": 16}).text
    stop = free[5:9]  # inside the answer, and over several tokens of a byte-level or a word-level tokenizer
    if len(stop) < 4 or "\ufffd" in stop:
        inconclusive(f"the model's answer is too short to stop in: {free!r}")
    expected = free[: free.index(stop)]
    sampling = {"max_new_tokens": 16, "stop": [stop]}
    plain = engine.generate(text=FOX, sampling=sampling)
    assert plain.text == expected, f"stop {stop!r} in {free!r}: expected {expected!r}, got {plain.text!r}"
    assert plain.finish is not None
    named = (plain.finish.type, plain.finish.matched)
    assert named == ("stop", stop), f"finish reason {named}, expected ('stop', {stop!r})"
    stream = engine.stream_generate(text=FOX, sampling=sampling)
    shown = "".join(stream.deltas)
    assert shown == expected, f"streamed {shown!r}, expected {expected!r}: the stop string leaked or text was lost"
