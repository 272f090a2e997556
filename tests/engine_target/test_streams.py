"""Streams are read strictly, however their bytes are cut."""

import json

import pytest

from gaugeblock.fixtures.errors import TargetFault
from gaugeblock.fixtures.targets.engine import EngineTarget
from gaugeblock.fixtures.targets.sse import SseParser
from gaugeblock.fixtures.workers.hostile import pieces, say


def event(text, finish=None):
    meta = {"finish_reason": finish, "prompt_tokens": 2, "completion_tokens": 1}
    return f"data: {json.dumps({'text': text, 'meta_info': meta}, ensure_ascii=False)}\n\n".encode()


END = {"type": "length"}


def streamed(hostile, *parts, **options):
    return EngineTarget(hostile({"/generate": pieces(*parts, **options)}).url).stream_generate(text="x")


def test_cumulative_events_become_deltas_with_arrival_times(hostile):
    got = streamed(hostile, event("a"), event("a b"), event("a b c", END), b"data: [DONE]\n\n")
    assert got.deltas == ("a", " b", " c")
    assert got.final.text == "a b c"
    assert list(got.arrivals) == sorted(got.arrivals)
    assert len(got.arrivals) == 3


def test_bytes_cut_inside_characters_lines_and_events_are_joined(hostile):
    whole = event("日本語 🙂") + b": comment\r\n" + event("日本語 🙂 é", END) + b"data: [DONE]\r\n\r\n"
    cuts = [whole[i : i + 7] for i in range(0, len(whole), 7)]
    assert streamed(hostile, *cuts).deltas == ("日本語 🙂", " é")


def test_every_cut_of_the_bytes_gives_the_same_events():
    whole = "event: x\ndata: é🙂\ndata: two\n\ndata: [DONE]\n\n".encode()
    for cut in range(1, len(whole)):
        parser = SseParser("u")
        events = [*parser.feed(whole[:cut], 0.0), *parser.feed(whole[cut:], 1.0)]
        parser.finish()
        assert [(e.event, e.data) for e in events] == [("x", "é🙂\ntwo"), (None, "[DONE]")]


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([event("a", END)], "ends with one [DONE]"),
        ([event("a"), b"data: [DONE]\n\n"], "last event of the stream has no finish_reason"),
        ([b"data: [DONE]\n\n"], "ends with one [DONE] after its events"),
        ([event("a", END), b"data: [DONE]\n\n", event("b")], "ends with one [DONE]"),
        ([event("a"), b'data: {"text": "a b"'], "ended its stream inside an event, after 1"),
        ([event("a"), b"data: \xff\xfe\n\n"], "not UTF-8"),
        ([b'{"text": "plain json lines"}\n'], "not SSE"),
        ([b"data: {oops\n\n", b"data: [DONE]\n\n"], "not JSON"),
        ([b'data: {"error": {"message": "no memory"}}\n\n', b"data: [DONE]\n\n"], "no memory"),
    ],
)
def test_a_broken_stream_is_named(hostile, parts, words):
    with pytest.raises(TargetFault) as caught:
        streamed(hostile, *parts)
    assert words in str(caught.value)


def test_text_taken_back_is_named(hostile):
    got = streamed(hostile, event("a\ufffd"), event("aé", END), b"data: [DONE]\n\n")
    with pytest.raises(TargetFault, match="event 1 took text back"):
        assert got.deltas


def test_a_plain_answer_to_a_streamed_request_is_named(hostile):
    target = EngineTarget(hostile({"/generate": say(200, b'{"text": "all at once"}')}).url)
    with pytest.raises(TargetFault, match=r"content type 'application/json'.*all at once"):
        target.stream_generate(text="x")


def chunk(index=0, text=None, finish=None):
    choice = {"index": index, "delta": {} if text is None else {"content": text}, "finish_reason": finish}
    return f"data: {json.dumps({'id': 'c', 'model': 'm', 'choices': [choice]})}\n\n".encode()


def chat(hostile, *parts):
    scripts = {
        "/v1/models": say(200, b'{"data": [{"id": "m"}]}'),
        "/v1/chat/completions": pieces(*parts, b"data: [DONE]\n\n"),
    }
    return EngineTarget(hostile(scripts).url).stream_chat([{"role": "user", "content": "x"}])


def test_a_chat_stream_is_collected_by_choice(hostile):
    usage = b'data: {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}}\n\n'
    parts = [
        chunk(0, ""),
        chunk(1, "x"),
        chunk(0, "a"),
        chunk(0, "b"),
        chunk(0, finish="stop"),
        chunk(1, finish="length"),
    ]
    got = chat(hostile, *parts, usage)
    assert (got.text(0), got.text(1), got.finish(0), got.finish(1)) == ("ab", "x", "stop", "length")
    assert got.usage is not None
    assert got.usage.total_tokens == 5
    assert len(got.arrivals(0)) == 2


def test_text_after_the_finish_is_named(hostile):
    got = chat(hostile, chunk(0, "a", "stop"), chunk(0, "b"))
    with pytest.raises(TargetFault, match="went on after finish_reason 'stop'"):
        got.finish()
