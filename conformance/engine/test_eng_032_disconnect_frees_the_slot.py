"""ENG-032."""

from gaugeblock.conformance.check import check
from gaugeblock.fixtures.prompts import COUNT
from gaugeblock.fixtures.targets.engine import EngineTarget


@check(
    "ENG-032",
    feature="native-generate",
    bound="nothing runs within 10 s of the disconnect, when 1200 tokens were asked for",
    sources=("https://github.com/sgl-project/sglang/issues/9817",),
)
def test_eng_032(engine: EngineTarget) -> None:
    """A client that leaves frees its slot.

    The engine went on generating for nobody after the connection of a stream was closed: slots and KV pages are lost
    until max_new_tokens. Look at the disconnect listener of the streaming response.
    """
    sampling = {"temperature": 0, "max_new_tokens": 1200, "ignore_eos": True}
    with engine.stream("/generate", {"text": COUNT, "stream": True, "sampling_params": sampling}) as events:
        next(events)
        assert engine.running() >= 1, "a request is being streamed, but the engine reports none running"
    engine.idle(10)
