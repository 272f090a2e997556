"""LOAD-001: the smoke gate."""

from __future__ import annotations

import statistics

from gaugeblock.conformance.check import check
from gaugeblock.conformance.engine.evidence import Note
from gaugeblock.conformance.load.streams import STREAMS, Stream, stream_many
from gaugeblock.fixtures.targets.engine import EngineTarget

TOKENS = 12


@check(
    "LOAD-001",
    feature="endpoint",
    bound="exact: every stream has the tokens asked for (at most so many where it cannot be told to ignore its end)",
    sources=(
        "https://github.com/vllm-project/vllm/issues/13408",
        "https://github.com/vllm-project/production-stack/issues/749",
    ),
    gate=True,
    timeout=90,
)
def test_load_001(engine: EngineTarget, note: Note) -> None:
    """Sixteen streams at once all come to their end

    Nothing else about load is worth measuring while some of sixteen requests fail or come back short. Look first at
    admission (a queue that refuses instead of waiting), then at what a full batch does to its members' limits.
    """
    streams = stream_many(engine, STREAMS, TOKENS)
    exact = engine.dialect in ("sglang", "vllm")
    for number, stream in enumerate(streams):
        _judge(f"stream {number} of {STREAMS} at once", stream, exact)
    first = [stream.arrivals[0] for stream in streams]
    between = [stream.spread / (stream.tokens - 1) for stream in streams if stream.tokens > 1]
    assert min(first) > 0, f"a first token arrived {min(first)} s after its request was sent"
    note(
        f"{STREAMS} streams of {TOKENS} tokens: first token after {statistics.median(first) * 1e3:.0f} ms (slowest "
        f"{max(first) * 1e3:.0f}), then {statistics.median(between) * 1e3:.1f} ms a token (medians)"
    )


def _judge(where: str, stream: Stream, exact: bool) -> None:
    assert stream.tokens <= TOKENS, f"{where}: {stream.tokens} tokens came for {TOKENS}"
    ended = not exact and stream.finish == "stop"
    assert ended or stream.tokens == TOKENS, f"{where}: {stream.tokens} tokens came for {TOKENS}: {stream.text!r}"
    assert ended or stream.finish == "length", f"{where}: all {TOKENS} tokens, ended by {stream.finish!r}"
    assert stream.arrivals, f"{where}: {stream.tokens} tokens came without any text"
