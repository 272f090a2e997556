from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaugeblock.reference.router.body import ChunkedDecoder, chunk
from gaugeblock.reference.router.http1 import (
    MalformedError,
    body_length,
    end_to_end,
    keeps_alive,
    parse_request_head,
    parse_response_head,
)
from gaugeblock.reference.router.sse import EventGuard, error_event

WIRE = b"5\r\nhello\r\n1;x=y\r\n \r\n5\r\nworld\r\n0\r\nTrailer: 1\r\n\r\nNEXT"
STREAM = b'data: {"a": 1}\n\n: ping\n\ndata: \xf0\x9f\x98\x80\r\n\r\ndata: x\ndata: y\n\ndata: [DONE]\n\n'


@given(st.lists(st.integers(0, len(WIRE)), max_size=8))
def test_chunked_bodies_split_anywhere(cuts: list[int]) -> None:
    decoder, content, rest = ChunkedDecoder(), b"", b""
    edges = [0, *sorted(cuts), len(WIRE)]
    for a, b in pairwise(edges):
        if decoder.done:
            rest += WIRE[a:b]
        else:
            content += b"".join(decoder.feed(WIRE[a:b]))
    assert (content, decoder.done, decoder.rest + rest) == (b"hello world", True, b"NEXT")


def test_a_chunk_round_trips() -> None:
    assert ChunkedDecoder().feed(chunk(b"x" * 300)) == [b"x" * 300]


@pytest.mark.parametrize("wire", [b"0x5\r\nhello\r\n", b"-1\r\n", b"+5\r\nhello\r\n", b"\r\n", b"5\r\nhelloX\r\n"])
def test_broken_chunks_are_refused(wire: bytes) -> None:
    with pytest.raises(MalformedError):
        ChunkedDecoder().feed(wire)


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nA : b",
        b"GET / HTTP/1.1\r\nA: b\r\n folded",
        b"GET / HTTP/1.1\r\n: b",
        b"GET /\r\nA: b",
        b"GET / HTTP/2.0",
        b"G\0T / HTTP/1.1",
        b"GET / HTTP/1.1\r\nA: b\nInjected: 1",
        b"GET /\x01 HTTP/1.1",
        b"POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    ],
)
def test_malformed_request_heads_are_refused(head: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_request_head(head)


@pytest.mark.parametrize(
    "fields",
    [
        {b"content-length": b"-1"},
        {b"content-length": b"1_0"},
        {b"content-length": b"3", b"transfer-encoding": b"chunked"},
        {b"transfer-encoding": b"gzip, chunked"},
    ],
)
def test_doubtful_lengths_are_refused(fields: dict[bytes, bytes]) -> None:
    with pytest.raises(MalformedError):
        body_length(fields)


def test_connection_fields_add_up() -> None:
    head = parse_request_head(b"GET / HTTP/1.1\r\nConnection: X-Hop\r\nX-Hop: 1\r\nConnection: close\r\nA: b")
    assert end_to_end(head) == [(b"A", b"b")]
    assert not keeps_alive(head, b"HTTP/1.1")


def test_hop_by_hop_fields_and_those_that_connection_names_stay_here() -> None:
    _, head = parse_response_head(
        b"HTTP/1.1 200 Fine\r\nConnection: close, X-Hop\r\nx-hop: 1\r\nX-KEEP: 2\r\nTE: z\r\nkeep-alive: 5\r\nx-keep: 3"
    )
    assert end_to_end(head) == [(b"X-KEEP", b"2"), (b"x-keep", b"3")]


@given(st.lists(st.integers(0, len(STREAM)), max_size=10))
def test_events_split_anywhere_leave_whole_and_unchanged(cuts: list[int]) -> None:
    guard, sent = EventGuard(done_required=True), b""
    edges = [0, *sorted(cuts), len(STREAM)]
    for a, b in pairwise(edges):
        sent += guard.feed(STREAM[a:b])
        assert sent == b"" or sent.endswith((b"\n\n", b"\n\r\n"))
    assert sent + guard.rest() == STREAM
    assert guard.complete


@pytest.mark.parametrize(
    "events", [b'data: {"text": "data: [DONE]"}\n\n', b"data: x[DONE]\n\n", b": [DONE]\n\n", b"", b"data: [DON"]
)
def test_what_only_resembles_the_end_is_not_the_end(events: bytes) -> None:
    guard = EventGuard(done_required=True)
    guard.feed(events)
    guard.rest()
    assert not guard.complete


@pytest.mark.parametrize(
    "events", [b"data: [DONE]\n\n", b"data:[DONE]\r\n\r\n", b"data: [DONE]\n\n: bye\n\n", b"data: [DONE]"]
)
def test_every_spelling_of_the_end_is_the_end(events: bytes) -> None:
    guard = EventGuard(done_required=True)
    guard.feed(events)
    guard.rest()
    assert guard.complete


@pytest.mark.parametrize("family", ["openai", "native", "responses", "messages"])
def test_error_events_are_one_event_of_json_each(family: str) -> None:
    event = error_event(family, 502, "worker_reset", "gone")
    assert event.endswith(b"\n\n")
    assert event.count(b"\n\n") == 1
    data = json.loads(event.split(b"data: ", 1)[1])
    assert "gone" in json.dumps(data)
    assert ("error" in data) is (family != "responses")
