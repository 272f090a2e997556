"""The scripted workers do what their scripts say, seen from a client and in their own record."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator

import pytest

from gaugeblock.fixtures.errors import TargetFault
from gaugeblock.fixtures.targets.wire import Limits, Reply, Wire
from gaugeblock.fixtures.workers.loop import Gate, WorkerLoop
from gaugeblock.fixtures.workers.script import HANG_AT_ONCE, RESET_AT_ONCE, Answer, End, dies_after
from gaugeblock.fixtures.workers.worker import ScriptedWorker

CHAT = "/v1/chat/completions"
BODY = json.dumps({"model": "scripted", "messages": [{"role": "user", "content": "hi"}]}).encode()
STREAM = json.dumps({"text": "hi", "stream": True, "rid": "r7"}).encode()


@pytest.fixture
def loop() -> Iterator[WorkerLoop]:
    loop = WorkerLoop()
    yield loop
    loop.close()


@pytest.fixture
def worker(loop: WorkerLoop) -> Iterator[ScriptedWorker]:
    worker = ScriptedWorker("w0", loop)
    yield worker
    worker.close()


@pytest.fixture
def wire(worker: ScriptedWorker) -> Wire:
    return Wire(worker.url, Limits(2.0, 3.0, 5.0))


def stream(wire: Wire) -> Reply:
    return wire.call("POST", "/generate", STREAM)


def test_a_healthy_worker_answers_every_path_of_an_engine(wire: Wire) -> None:
    for path in ("/health", "/get_model_info", "/model_info", "/get_server_info", "/server_info", "/v1/models"):
        assert wire.call("GET", path).status == 200, path
    assert wire.call("GET", "/get_load").json() == [
        {"dp_rank": 0, "num_reqs": 0, "num_waiting_reqs": 0, "num_tokens": 0}
    ]
    assert wire.call("GET", "/v1/loads").json()["loads"][0]["num_total_reqs"] == 0
    assert wire.call("GET", "/nowhere").status == 404


def test_the_typed_apis_say_the_same_in_events(wire: Wire) -> None:
    for path, event, text in (
        ("/v1/responses", "response.output_text.delta", lambda data: data["delta"]),
        ("/v1/messages", "content_block_delta", lambda data: data["delta"]["text"]),
    ):
        plain = wire.call("POST", path, b'{"input": "hi"}').json()
        whole = (plain["output"][0] if "output" in plain else plain)["content"][0]["text"]
        frames = wire.call("POST", path, b'{"input": "hi", "stream": true}').body.split(b"\n\n")[:-1]
        said = [frame.split(b"\ndata: ") for frame in frames]
        assert all(name.decode() == f"event: {json.loads(data)['type']}" for name, data in said)
        assert "".join(text(json.loads(data)) for name, data in said if name == f"event: {event}".encode()) == whole


@pytest.mark.parametrize("path", ["/generate", CHAT, "/v1/completions"])
def test_plain_and_streamed_answers_say_the_same(wire: Wire, path: str) -> None:
    field = {"messages": [{"role": "user", "content": "hi"}]} if "chat" in path else {"text": "hi", "prompt": "hi"}
    plain = wire.call("POST", path, json.dumps(field).encode()).json()
    frames = wire.call("POST", path, json.dumps({**field, "stream": True}).encode()).body.split(b"\n\n")
    assert frames[-2:] == [b"data: [DONE]", b""]
    last = json.loads(frames[-3].removeprefix(b"data: "))
    if path == "/generate":
        assert last["text"] == plain["text"]
        return
    kind = "delta" if "chat" in path else None
    pieces = [json.loads(f.removeprefix(b"data: "))["choices"][0] for f in frames[:-2]]
    text = "".join(p[kind]["content"] if kind else p["text"] for p in pieces)
    choice = plain["choices"][0]
    assert text == (choice["message"]["content"] if kind else choice["text"])


def test_the_record_holds_raw_bytes_and_order(loop: WorkerLoop, worker: ScriptedWorker, wire: Wire) -> None:
    odd = b'{ "text" :"a" ,\n"big":123456789012345678901234567890}'
    wire.call("POST", "/generate", odd, {"X-Odd": "Yes"})
    wire.call("POST", CHAT, BODY)
    first, second = worker.requests
    assert first.body == odd
    assert first.header("x-odd") == "Yes"
    assert (first.target, second.target) == ("/generate", CHAT)
    assert first.number < second.number
    loop.wait_for(lambda: first.ended == second.ended == "answered", 3.0, "both are recorded as answered")


def test_status_body_and_headers_are_exact(worker: ScriptedWorker, wire: Wire) -> None:
    worker.once(Answer(status=429, body=b'{ "slow" : 1}', headers=(("retry-after", "7"),)))
    reply = wire.call("POST", CHAT, BODY)
    assert (reply.status, reply.body, reply.headers["retry-after"]) == (429, b'{ "slow" : 1}', "7")
    assert wire.call("POST", CHAT, BODY).status == 200


def test_frames_keep_their_bytes_when_split(worker: ScriptedWorker, wire: Wire) -> None:
    frames = ("data: ü\n\n".encode(), b": comment\n\n", b"data: [DONE]\n\n")
    worker.always(Answer(frames=frames, split=1))
    assert stream(wire).body == b"".join(frames)


def test_a_reset_before_the_first_byte(worker: ScriptedWorker, wire: Wire) -> None:
    worker.once(RESET_AT_ONCE)
    with pytest.raises(TargetFault, match="broke the connection before the answer"):
        stream(wire)
    assert worker.requests[0].ended == "cut"


@pytest.mark.parametrize("streamed", [True, False])
def test_a_reset_midway(worker: ScriptedWorker, wire: Wire, streamed: bool) -> None:
    worker.once(dies_after(2))
    with pytest.raises(TargetFault, match="broke the connection"):
        wire.call("POST", "/generate", STREAM if streamed else b'{"text": "hi"}')
    assert worker.requests[0].frames_sent == (2 if streamed else 0)


def test_a_truncated_stream_ends_in_order_without_done(worker: ScriptedWorker, wire: Wire) -> None:
    worker.once(dies_after(2, End.TRUNCATE))
    body = stream(wire).body
    assert body.count(b"data: ") == 2
    assert b"[DONE]" not in body


def test_a_hang_shows_the_client_leaving(loop: WorkerLoop, worker: ScriptedWorker) -> None:
    worker.once(HANG_AT_ONCE)
    with pytest.raises(TargetFault, match="total limit"):
        Wire(worker.url, Limits(1.0, 0.2, 0.2)).call("POST", CHAT, BODY)
    loop.wait_for(lambda: worker.requests[0].ended == "client left", 3.0, "the worker sees its client leave")


def test_a_gate_holds_until_it_is_opened(loop: WorkerLoop, worker: ScriptedWorker, wire: Wire) -> None:
    gate = loop.call(lambda: Gate(loop))
    worker.once(Answer(hold=gate))
    replies: list[int] = []
    client = threading.Thread(target=lambda: replies.append(wire.call("POST", CHAT, BODY).status))
    client.start()
    loop.wait_for(lambda: worker.in_flight == 1, 3.0, "one request in flight")
    assert wire.call("GET", "/get_load").json()[0]["num_reqs"] == 1
    assert replies == []
    gate.open()
    client.join(5.0)
    assert replies == [200]
    loop.wait_for(lambda: worker.in_flight == 0, 3.0, "nothing in flight")


def test_a_frame_gate_holds_the_second_frame(loop: WorkerLoop, worker: ScriptedWorker, wire: Wire) -> None:
    gate = loop.call(lambda: Gate(loop))
    worker.once(Answer(frame_hold=gate))
    with wire.exchange("POST", "/generate", STREAM, {}) as exchange:
        pieces = exchange.pieces()
        assert next(pieces).count(b"data: ") == 1
        loop.wait_for(lambda: worker.requests[0].frames_sent == 1, 3.0, "one frame sent")
        gate.open()
        assert b"".join(pieces).endswith(b"data: [DONE]\n\n")


def test_an_abort_ends_its_request_alone(loop: WorkerLoop, worker: ScriptedWorker, wire: Wire) -> None:
    gate = loop.call(lambda: Gate(loop))
    worker.always(Answer(frame_hold=gate))
    with wire.exchange("POST", "/generate", STREAM, {}) as exchange:
        next(exchange.pieces())
        assert wire.call("POST", "/abort_request", b'{"rid": "other"}').status == 200
        assert worker.in_flight == 1
        wire.call("POST", "/abort_request", b'{"rid": "r7"}')
        loop.wait_for(lambda: worker.requests[0].ended == "aborted", 3.0, "the abort ends the request")
    assert worker.aborts == ["other", "r7"]


def test_an_abort_may_come_too_late(loop: WorkerLoop, worker: ScriptedWorker, wire: Wire) -> None:
    gate = loop.call(lambda: Gate(loop))
    worker.always(Answer(frame_hold=gate))
    worker.heeds_aborts = False
    with wire.exchange("POST", "/generate", STREAM, {}) as exchange:
        pieces = exchange.pieces()
        next(pieces)
        wire.call("POST", "/abort_request", b'{"rid": "r7"}')
        gate.open()
        assert b"".join(pieces).endswith(b"data: [DONE]\n\n")
    loop.wait_for(lambda: worker.requests[0].ended, 3.0, "the end of the request is recorded")
    assert (worker.aborts, worker.requests[0].ended) == (["r7"], "answered")
    worker.reset()
    assert worker.heeds_aborts


def test_health_goes_down_hangs_and_comes_up(worker: ScriptedWorker, wire: Wire) -> None:
    worker.health = "down"
    assert wire.call("GET", "/health").status == 503
    worker.health = "hang"
    with pytest.raises(TargetFault):
        Wire(worker.url, Limits(1.0, 0.2, 0.2)).call("GET", "/health")
    worker.health = "up"
    assert wire.call("GET", "/health").status == 200


def test_a_killed_worker_refuses_and_keeps_its_port(worker: ScriptedWorker, wire: Wire) -> None:
    port = worker.port
    worker.kill()
    with pytest.raises(TargetFault, match="refused the connection"):
        wire.call("GET", "/health")
    worker.revive()
    assert wire.call("GET", "/health").status == 200
    assert worker.port == port


def test_a_reset_worker_has_forgotten_everything(worker: ScriptedWorker, wire: Wire) -> None:
    worker.always(Answer(status=500))
    wire.call("POST", CHAT, BODY)
    worker.health = "down"
    worker.kill()
    worker.reset()
    assert worker.requests == []
    assert wire.call("POST", CHAT, BODY).status == 200
    assert wire.call("GET", "/health").status == 200


def test_cached_tokens_are_the_longest_shared_prefix(wire: Wire) -> None:
    def cached(text: str) -> int:
        return int(
            wire.call("POST", "/generate", json.dumps({"text": text}).encode()).json()["meta_info"]["cached_tokens"]
        )

    assert [cached("abcdef"), cached("abcxyz"), cached("abcdef"), cached("zzz")] == [0, 3, 5, 0]
    assert wire.call("POST", "/flush_cache").status == 200
    assert cached("abcdef") == 0


def test_a_chunked_request_is_read_whole(worker: ScriptedWorker, wire: Wire) -> None:
    import requests

    reply = requests.post(worker.url + "/generate", data=iter([b'{"te', b'xt": "hi"}']), timeout=5)
    assert reply.status_code == 200
    assert worker.requests[0].body == b'{"text": "hi"}'


def test_answers_are_not_delayed_by_nagle(loop: WorkerLoop, worker: ScriptedWorker, wire: Wire) -> None:
    """Head and body are two writes: with Nagle's delay each answer on a kept connection waits 40 ms for an ACK."""
    import socket

    gate = loop.call(lambda: Gate(loop))
    worker.once(Answer(frame_hold=gate))
    with wire.exchange("POST", "/generate", STREAM, {}) as exchange:
        next(exchange.pieces())
        [connection] = worker._listener._connections
        sock = connection.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
