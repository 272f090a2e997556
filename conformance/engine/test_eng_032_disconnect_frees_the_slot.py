"""ENG-032."""

from collections.abc import Iterator, Sequence
from statistics import median

from gaugeblock.conformance.check import check
from gaugeblock.fixtures.prompts import COUNT
from gaugeblock.fixtures.targets.engine import EngineTarget
from gaugeblock.fixtures.targets.sse import SseEvent

BEFORE, WINDOW = 41, 8
"""Events that are read before leaving, and those that tell the pace together: five windows, of which a hiccup spoils
one, however many events it holds back."""


@check(
    "ENG-032",
    feature="native-generate",
    bound="idle within a quarter of the time that all its tokens would take at the pace seen, at most 10 s: a busy "
    "machine may become twice as fast meanwhile",
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
        seen = list(_beginning(events, tokens // 4))
        assert engine.running() >= 1, "a request is being streamed, but the engine reports none running"
    engine.idle(min(10.0, max(0.2, 0.25 * seconds_a_token(seen) * tokens)))


def _beginning(events: Iterator[SseEvent], tokens: int) -> Iterator[SseEvent]:
    """Yield ``BEFORE`` events, or fewer that hold so many tokens."""
    for number, event in enumerate(events, 1):
        yield event
        if number == BEFORE or (number > 1 and _made(event) >= tokens):
            return


def seconds_a_token(events: Sequence[SseEvent]) -> float:
    """Return the pace of a stream of ``/generate``: the median over windows of ``WINDOW`` events, or all if fewer."""
    starts = range(0, max(1, len(events) - WINDOW), WINDOW)
    windows = [(events[at], events[min(at + WINDOW, len(events) - 1)]) for at in starts]
    return median((last.at - first.at) / max(_made(last) - _made(first), 1) for first, last in windows)


def _made(event: SseEvent) -> int:
    return int(event.json()["meta_info"]["completion_tokens"])
