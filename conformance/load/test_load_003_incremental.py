"""LOAD-003: streams stay streams under load."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.engine.evidence import Note
from gaugeblock.conformance.load.streams import STREAMS, Stream, stream_many, stream_one
from gaugeblock.conformance.outcome import inconclusive
from gaugeblock.fixtures.targets.engine import EngineTarget

TOKENS = 24
FURTHER = 2  # crowds after one that came in a burst, which a machine that is busy with something else makes, too
ALONE = 2  # runs alone: the quicker one counts, for a hiccup only makes a stream longer
RESOLUTION = 0.02  # seconds: answers shorter than this cannot be told from a burst by a client in Python


@check(
    "LOAD-003",
    feature="endpoint",
    bound=(
        "under load no stream's tokens arrive within half the time they take alone, but in one crowd of three: a "
        "decode step of a batch takes no less than one of a single request, half leaves room for the client's own "
        "delay, and a busy machine may hold one crowd back; alone, the first token of 24 comes before three "
        "quarters of the answer's time, where prefill of 15 tokens takes about one step of 24"
    ),
    sources=(
        "https://github.com/vllm-project/production-stack/issues/749",
        "https://github.com/open-webui/open-webui/issues/29628",
    ),
    timeout=120,
)
def test_load_003(engine: EngineTarget, note: Note) -> None:
    """Tokens arrive as they are made, also when many streams run

    Each of sixteen streams must spread its tokens over time as a single stream does. When they come in one burst,
    something collects them: look at the response's buffering (a proxy, compression, one queue for all streams), then at
    a detokenizer that answers streams one after the other.
    """
    singles = [stream_one(engine, STREAMS + number, TOKENS) for number in range(ALONE)]
    shortest = min(singles, key=lambda stream: stream.arrivals[-1])
    total, alone = shortest.arrivals[-1], min(stream.spread for stream in singles)
    if total < RESOLUTION:
        inconclusive(f"{TOKENS} tokens took {total * 1e3:.1f} ms: too quick to tell a stream from a burst")
    assert shortest.spread >= total / 4, (
        f"a single stream of {TOKENS} tokens arrived within the last {shortest.spread * 1e3:.0f} of "
        f"{total * 1e3:.0f} ms: it is not streamed"
    )
    streams, burst = _crowd(engine, alone / 2)
    again = [_crowd(engine, alone / 2)[1] for _ in range(FURTHER if burst else 0)]
    assert not any(again), (
        f"{len(burst)} of {STREAMS} streams at once arrived in a burst, and again in a further crowd: stream "
        f"{min(burst)} within {burst[min(burst)] * 1e3:.0f} ms, alone its {TOKENS} tokens take {alone * 1e3:.0f} ms"
    )
    least = min(stream.spread for stream in streams)
    once = f"; one crowd came in a burst, the next {FURTHER} did not" if burst else ""
    note(f"{TOKENS} tokens spread over {alone * 1e3:.0f} ms alone, over at least {least * 1e3:.0f} ms in a crowd{once}")


def _crowd(engine: EngineTarget, least: float) -> tuple[list[Stream], dict[int, float]]:
    """Return the streams of a crowd, and by number the seconds of those that took less than ``least``."""
    streams = stream_many(engine, STREAMS, TOKENS)
    return streams, {number: s.spread for number, s in enumerate(streams) if s.tokens == TOKENS and s.spread < least}
