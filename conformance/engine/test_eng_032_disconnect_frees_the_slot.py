"""ENG-032."""

from gaugeblock.conformance.check import check
from gaugeblock.fixtures.prompts import COUNT
from gaugeblock.fixtures.targets.engine import EngineTarget

BEFORE = 8  # events to read before leaving: they tell the pace


@check(
    "ENG-032",
    feature="native-generate",
    bound="idle within half the time that the remaining tokens would take at the pace seen, at most 10 s",
    sources=("https://github.com/sgl-project/sglang/issues/9817",),
)
def test_eng_032(engine: EngineTarget) -> None:
    """A client that leaves frees its slot.

    The engine went on generating for nobody after the connection of a stream was closed: slots and KV pages are lost
    until max_new_tokens. Look at the disconnect listener of the streaming response.
    """
    tokens = min((engine.probed.context_length or 2048) - 200, 1800)
    sampling = {"temperature": 0, "max_new_tokens": tokens, "ignore_eos": True}
    with engine.stream("/generate", {"text": COUNT, "stream": True, "sampling_params": sampling}) as events:
        seen = [next(events) for _ in range(BEFORE)]
        assert engine.running() >= 1, "a request is being streamed, but the engine reports none running"
    made = seen[-1].json()["meta_info"]["completion_tokens"] - seen[0].json()["meta_info"]["completion_tokens"]
    pace = (seen[-1].at - seen[0].at) / max(made, 1)  # seconds a token
    engine.idle(min(10.0, max(0.2, 0.5 * pace * tokens)))
