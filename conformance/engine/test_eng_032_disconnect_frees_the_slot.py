"""ENG-032."""

from collections.abc import Iterator, Sequence
from statistics import median

from gaugeblock.conformance.check import check
from gaugeblock.fixtures.prompts import COUNT
from gaugeblock.fixtures.targets.engine import EngineTarget
from gaugeblock.fixtures.targets.sse import SseEvent

FEWEST, MOST, SECONDS = 9, 161, 2.0
"""Events of a stream that tell its pace: at most so many, on a slow engine those of 2 s."""
WINDOWS = 5
"""A pause makes one of them long, and the events that it held back make the next ones short: the middle one is neither,
unless more than two windows' events were held back."""


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
    """Yield the events that tell the pace, or fewer that hold so many tokens."""
    start = 0.0
    for number, event in enumerate(events, 1):
        yield event
        start = start or event.at
        enough = _made(event) >= tokens or (number >= FEWEST and event.at - start >= SECONDS)
        if number == MOST or (number > 1 and enough):
            return


def seconds_a_token(events: Sequence[SseEvent]) -> float:
    """Return the pace of a stream of ``/generate``: the median over ``WINDOWS`` windows of equally many events."""
    size = max(1, (len(events) - 1) // WINDOWS)
    windows = [(events[at], events[at + size]) for at in range(0, len(events) - size, size)]
    return median((last.at - first.at) / max(_made(last) - _made(first), 1) for first, last in windows)


def _made(event: SseEvent) -> int:
    return int(event.json()["meta_info"]["completion_tokens"])
