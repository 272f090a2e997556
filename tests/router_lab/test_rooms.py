"""Prefill and decode workers meet in rooms, and a lab of them looks the same to every router."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from gaugeblock.fixtures.errors import TargetFault
from gaugeblock.fixtures.targets.parallel import parallel
from gaugeblock.fixtures.targets.router import make_workers
from gaugeblock.fixtures.targets.router_launch import LabConfig, reference_launcher, sglang_router_launcher
from gaugeblock.fixtures.targets.wire import Limits, Reply, Wire
from gaugeblock.fixtures.workers import worker as worker_module
from gaugeblock.fixtures.workers.loop import Gate, WorkerLoop
from gaugeblock.fixtures.workers.rooms import Part, rooms_of
from gaugeblock.fixtures.workers.script import RESET_AT_ONCE, Answer
from gaugeblock.fixtures.workers.worker import ScriptedWorker

PD = LabConfig(prefill=1, decode=1)
Pair = tuple[ScriptedWorker, ScriptedWorker]


@pytest.fixture
def loop() -> Iterator[WorkerLoop]:
    loop = WorkerLoop()
    yield loop
    loop.close()


@pytest.fixture
def pair(loop: WorkerLoop) -> Iterator[Pair]:
    prefill, decode = make_workers(PD, loop)
    yield prefill, decode
    prefill.close()
    decode.close()


def ask(worker: ScriptedWorker, room: object, **fields: object) -> Reply:
    body = json.dumps({"text": "hi", "bootstrap_room": room, **fields}).encode()
    return Wire(worker.url, Limits(2.0, 5.0, 5.0)).call("POST", "/generate", body)


def test_decode_waits_for_its_own_prefill(loop: WorkerLoop, pair: Pair) -> None:
    prefill, decode = pair
    gate = Gate(loop)

    def deliver() -> Reply:
        loop.wait_for(lambda: decode.requests, 3.0, "decode has the request")
        assert decode.requests[0].in_flight
        assert ask(prefill, [1, 2]).status == 200
        assert decode.requests[0].in_flight, "its room was not among those"
        gate.open()
        return ask(prefill, 3)

    answers = parallel([lambda: ask(decode, 3, stream=True), deliver])
    assert [answer.status for answer in answers] == [200, 200]
    assert answers[0].body.endswith(b"[DONE]\n\n")
    assert (prefill.requests[0].rooms, prefill.requests[1].rooms) == ((1, 2), (3,))


@pytest.mark.parametrize("answer", [Answer(status=500), Answer(delivers="never"), RESET_AT_ONCE])
def test_decode_gives_up_on_a_prefill_that_delivers_nothing(
    pair: Pair, answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefill, decode = pair
    monkeypatch.setattr(worker_module, "ROOM_LIMIT", 0.1)
    prefill.always(answer)
    try:
        ask(prefill, 5)
    except TargetFault:
        assert answer is RESET_AT_ONCE
    reply = ask(decode, 5)
    assert reply.status == 500
    assert b"KVTransferError" in reply.body


def test_a_refusing_prefill_can_deliver_all_the_same(loop: WorkerLoop, pair: Pair) -> None:
    prefill, decode = pair
    prefill.always(Answer(status=400, delivers="after"))
    assert ask(prefill, 6).status == 400
    assert ask(decode, 6).status == 200


def test_a_decode_that_refuses_waits_for_nothing(pair: Pair) -> None:
    pair[1].always(Answer(status=503))
    began = time.monotonic()
    assert ask(pair[1], 7).status == 503
    assert time.monotonic() - began < 2.0


def test_a_request_without_a_room_is_refused_by_both(pair: Pair) -> None:
    assert [ask(worker, None).status for worker in pair] == [400, 400]


def test_an_abort_ends_a_decode_that_waits(loop: WorkerLoop, pair: Pair) -> None:
    _, decode = pair

    def abort() -> None:
        loop.wait_for(lambda: decode.requests, 3.0, "decode has the request")
        Wire(decode.url, Limits(2.0, 3.0, 5.0)).call("POST", "/abort_request", b'{"rid": "r7"}')

    def generate() -> None:
        with pytest.raises(TargetFault):
            ask(decode, 8, rid="r7")

    parallel([generate, abort])
    assert decode.requests[0].ended == "aborted"


def test_the_rank_is_named_or_follows_the_room() -> None:
    part = Part("prefill", dp_size=4)
    assert part.rank({"bootstrap_room": 7}) == 3
    assert part.rank({"bootstrap_room": [6, 10]}) == 2
    assert part.rank({"bootstrap_room": 7, "routed_dp_rank": 1}) == 1
    assert part.rank({"bootstrap_room": 7, "data_parallel_rank": 0}) == 0
    assert rooms_of({"bootstrap_room": "7"}) == rooms_of([]) == ()


def test_each_rank_has_a_cache_of_its_own(pair: Pair, loop: WorkerLoop) -> None:
    worker = ScriptedWorker("p", loop, part=Part("prefill", dp_size=2))
    try:
        cached = [ask(worker, room).json()["meta_info"]["cached_tokens"] for room in (1, 2, 3, 4)]
    finally:
        worker.close()
    assert cached == [0, 0, 1, 1]


def test_every_router_gets_the_pairs_in_its_own_words(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    urls = [f"http://127.0.0.1:{port}" for port in (1, 2, 3)]
    config = LabConfig(prefill=2, decode=1)
    workers = json.loads(reference_launcher().build(config, urls, 7)[-1])["workers"]
    assert [(w["role"], w["url"], w.get("bootstrap_port")) for w in workers] == [
        ("prefill", urls[0], 8990),
        ("prefill", urls[1], 8991),
        ("decode", urls[2], None),
    ]
    monkeypatch.setenv("GAUGEBLOCK_SGLANG_ROUTER", "sh")
    argv = sglang_router_launcher().build(config, urls, 7)
    assert argv[argv.index("--pd-disaggregation") :] == [
        "--pd-disaggregation",
        *("--prefill", urls[0], "8990", "--prefill", urls[1], "8991", "--decode", urls[2]),
    ]
    assert "--worker-urls" not in argv
