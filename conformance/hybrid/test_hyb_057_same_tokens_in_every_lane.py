"""HYB-057."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gaugeblock.conformance.check import check
from gaugeblock.conformance.inprocess_fixtures import needs_torch

if TYPE_CHECKING:
    from gaugeblock.reference.engine.types import TokenEvent
    from gaugeblock.reference.hybrid.engine_lanes import HybridEngine

LENGTH, CUT = 10, 4
GREEDY: dict[str, Any] = {"temperature": 0.0}
DRAWN: dict[str, Any] = {"temperature": 2.0, "seed": 11, "min_new_tokens": 8, "presence_penalty": 1.0}


@check(
    "HYB-057",
    feature="lanes",
    bound="exact: structure is tested in fp32, where a lane that goes on has the same numbers from the same tokens",
    sources=(
        "https://github.com/ai-dynamo/dynamo/pull/7930",
        "https://github.com/anthony-chaudhary/fak/issues/5278",
    ),
)
def test_hyb_057(record_property: Callable[[str, object], None]) -> None:
    """In fp32 an answer's tokens and text are the same whichever lanes made it

    Greedy and drawn, in the GPU lane, in the CPU lane, and begun in one and ended in the other. Look at what the second
    lane takes for prompt and what for answer: the seed's place, penalties and lengths hang on it, and the text too.
    """
    with needs_torch():
        from gaugeblock.reference.hybrid.engine_lanes import HybridEngine, LaneSpec
    from gaugeblock.fixtures.embedded import tiny_model
    from gaugeblock.reference.engine.types import EngineConfig

    config = EngineConfig(str(tiny_model()), max_total_tokens=512)
    lanes = HybridEngine(config, (LaneSpec("gpu", "gpu", "fp32"), LaneSpec("cpu", "cpu", "fp32")))
    lanes.start()
    try:
        for how, sampling in (("greedy", GREEDY), ("drawn", DRAWN)):
            high, low = _Answer(lanes, f"high {how}", "high", sampling), _Answer(lanes, f"low {how}", "low", sampling)
            moved = _Answer(lanes, f"moved {how}", "high", sampling, cut=CUT)
            for answer in (high, low, moved):
                answer.wait()
            assert (high.lanes, low.lanes) == (["gpu"], ["cpu"]), f"served by {high.lanes} and {low.lanes}"
            assert moved.lanes == ["gpu", "cpu"], f"served by {moved.lanes}: nobody went on with it"
            for name, other in (("in the CPU lane", low), ("begun in one lane and ended in the other", moved)):
                assert other.tokens == high.tokens, f"{how}, {name}: {other.tokens}, not {high.tokens}"
                assert other.text == high.text, f"{how}, {name}: {other.text!r}, not {high.text!r}"
    finally:
        lanes.stop()
    record_property("evidence", f"2 answers of {LENGTH} tokens by 3 ways each")


class _Answer:
    """One answer; ``cut`` ends it in its first lane after so many tokens, as a device fault would."""

    def __init__(self, engine: HybridEngine, rid: str, priority: str, sampling: dict[str, Any], cut: int = 0) -> None:
        from gaugeblock.reference.engine.types import GenerateRequest, SamplingParams
        from gaugeblock.reference.hybrid.jobs import Qos

        self.tokens: list[int] = []
        self.text = ""
        self.lanes: list[str] = []
        self._done, self._cut, self._engine = threading.Event(), cut, engine
        self._rid = f"{rid}/0"
        prompt = tuple(engine.tokenizer.encode("def main(arguments):\n    return "))
        request = GenerateRequest(rid, prompt, SamplingParams(max_new_tokens=LENGTH, ignore_eos=True, **sampling))
        engine.front.submit(request, self._take, Qos(priority))

    def _take(self, event: TokenEvent) -> None:
        if event.token_id is not None:
            self.tokens.append(event.token_id)
            self.lanes += [str((event.served_by or {}).get("lane"))] if event.served_by else []
            self.lanes = list(dict.fromkeys(self.lanes))
        self.text += event.text
        if event.finish is not None:
            self._done.set()
        elif len(self.tokens) == self._cut:
            self._engine.engines[0].abort(self._rid)  # to the front its lane has ended it unasked

    def wait(self) -> None:
        """Wait for the end."""
        assert self._done.wait(20.0), f"{self._rid} had no end within 20 s, after {self.tokens}"
