"""Streams: passed on piece by piece, ended honestly, cancelled at once, timed by silence and not by length."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

BODY = b'{"text": "x", "stream": true}'
EVENTS = 'data: {"text": "café 😀", "big": 123456789012345678901234567890}\n\n: ping\n\ndata: [DONE]\n\n'.encode()


async def slow_reader_safe(call: Any, pieces: list[bytes]) -> None:
    call.begin_stream()
    for piece in pieces:
        call.piece(piece)
        await call.writer.drain()
    call.end_stream()


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_events_split_at_any_byte_arrive_unchanged(tools: Any, size: int) -> None:
    async def pieces(call: Any) -> None:
        await slow_reader_safe(call, [EVENTS[i : i + size] for i in range(0, len(EVENTS), size)])

    async def main() -> None:
        async with tools.lab([tools.Worker(pieces)]) as lab:
            response = await lab.post("/generate", BODY)
            assert (response.status, response.body, response.whole) == (200, EVENTS, True)

    tools.run(main())


def test_an_event_reaches_the_client_before_the_next_one_exists(tools: Any) -> None:
    seen = asyncio.Event()

    async def stepwise(call: Any) -> None:
        call.begin_stream()
        call.piece(b"data: 1\n\n")
        await seen.wait()
        call.piece(b"data: [DONE]\n\n")
        call.end_stream()

    async def main() -> None:
        async with tools.lab([tools.Worker(stepwise)]) as lab:
            client = await lab.client()
            client.post("/generate", BODY)
            await client.read_head()
            assert await client.read_piece() == b"data: 1\n\n"
            assert lab.in_flight == 1
            seen.set()
            assert await client.read_piece() == b"data: [DONE]\n\n"
            assert await client.read_piece() == b""
            await tools.until(lambda: lab.in_flight == 0, "in-flight back to 0")
            client.close()

    tools.run(main())


def test_a_head_without_a_body_yet_is_not_held_for_ever(tools: Any) -> None:
    seen = asyncio.Event()

    async def late(call: Any) -> None:
        call.begin_stream()
        await seen.wait()
        call.piece(b"data: [DONE]\n\n")
        call.end_stream()

    async def main() -> None:
        async with tools.lab([tools.Worker(late)], head_hold=0.01) as lab:
            client = await lab.client()
            client.post("/generate", BODY)
            assert (await client.read_head()).startswith(b"HTTP/1.1 200 OK")
            seen.set()
            assert await client.read_piece() == b"data: [DONE]\n\n"
            client.close()

    tools.run(main())


@pytest.mark.parametrize(
    ("path", "start"),
    [
        ("/v1/chat/completions", b'data: {"error": '),
        ("/v1/completions", b'data: {"error": '),
        ("/generate", b'data: {"error": '),
        ("/v1/responses", b'event: error\ndata: {"type": "error", '),
        ("/v1/messages", b'event: error\ndata: {"type": "error", "error": '),
    ],
)
def test_a_stream_that_dies_ends_with_an_error_of_its_api(tools: Any, path: str, start: bytes) -> None:
    async def dies(call: Any) -> None:
        call.begin_stream()
        call.piece(b'data: {"n": 1}\n\n')
        call.piece(b'data: {"n": 2')  # never finished: must not reach the client as an event
        await call.flushed_reset()

    async def main() -> None:
        workers = [tools.Worker(dies), tools.Worker(dies)]
        async with tools.lab(workers, breaker_failures=1) as lab:
            response = await lab.post(path, BODY)
            assert response.whole
            first, last, rest = response.body.split(b"\n\n")
            assert (first, rest) == (b'data: {"n": 1}', b"")
            assert last.startswith(start)
            assert json.loads(last.split(b"data: ", 1)[1])
            assert b"[DONE]" not in response.body
            assert sum(len(worker.calls) for worker in workers) == 1, "no retry after the first byte"
            assert lab.state(lab.worker(response)).breaker.state == "open"

    tools.run(main())


@pytest.mark.parametrize("tail", [b"", b"data: 2"], ids=["at a boundary", "inside an event"])
def test_a_clean_end_without_done_is_told_and_scored_as_a_fault(tools: Any, tail: bytes) -> None:
    async def truncated(call: Any) -> None:
        await slow_reader_safe(call, [b"data: 1\n\n" + tail])

    async def main() -> None:
        worker = tools.Worker(truncated)
        async with tools.lab([worker]) as lab:
            response = await lab.post("/v1/chat/completions", BODY)
            assert response.body.startswith(b"data: 1\n\n" + tail)
            assert json.loads(response.body.rpartition(b"data: ")[2])["error"]["code"] == "worker_truncated"
            assert lab.state(worker).outcomes["fault"] == 1

    tools.run(main())


def test_a_worker_that_tells_its_own_error_is_not_corrected(tools: Any) -> None:
    told = b'data: {"error": {"message": "out of memory"}}\n\n'

    async def main() -> None:
        worker = tools.Worker(lambda call: slow_reader_safe(call, [told]))
        async with tools.lab([worker]) as lab:
            response = await lab.post("/generate", BODY)
            assert response.body == told
            assert lab.state(worker).outcomes["fault"] == 1

    tools.run(main())


def test_a_plain_body_that_dies_is_cut_without_its_end(tools: Any) -> None:
    async def dies(call: Any) -> None:
        call.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n")
        call.piece(b"half of ")
        await call.flushed_reset()

    async def main() -> None:
        async with tools.lab([tools.Worker(dies)]) as lab:
            response = await lab.post("/generate", b"{}")
            assert not response.whole or not response.body.endswith(b"0\r\n\r\n")
            assert not response.whole

    tools.run(main())


@pytest.mark.parametrize("stage", ["before the head", "in the stream"])
def test_a_client_that_leaves_cancels_its_worker_at_once_and_is_neutral(tools: Any, stage: str) -> None:
    left, arrived = asyncio.Event(), asyncio.Event()

    async def endless(call: Any) -> None:
        if stage == "in the stream":
            call.begin_stream()
            call.piece(b"data: 1\n\n")
        arrived.set()
        await call.client_left()
        left.set()

    async def main() -> None:
        worker = tools.Worker(endless)
        async with tools.lab([worker], breaker_failures=1) as lab:
            client = await lab.client()
            client.post("/generate", BODY)
            if stage == "in the stream":
                await client.read_head()
                await client.read_piece()
            await arrived.wait()
            assert lab.in_flight == 1
            client.close()
            await asyncio.wait_for(left.wait(), 1.0)
            await tools.until(lambda: lab.in_flight == 0, "in-flight back to 0", 1.0)
            assert lab.state(worker).outcomes == {"success": 0, "fault": 0, "neutral": 1}
            assert lab.state(worker).available()

    tools.run(main())


def test_silence_is_timed_and_length_is_not(tools: Any) -> None:
    async def steady(call: Any) -> None:
        call.begin_stream()
        for _ in range(8):
            call.piece(b"data: 1\n\n")
            await asyncio.sleep(0.06)  # the length of the stream is what is under test
        call.piece(b"data: [DONE]\n\n")
        call.end_stream()

    async def main() -> None:
        async with tools.lab([tools.Worker(steady)], idle_timeout=0.3) as lab:
            response = await lab.post("/generate", BODY)
            assert response.body == b"data: 1\n\n" * 8 + b"data: [DONE]\n\n"

    tools.run(main())


@pytest.mark.parametrize(("limit", "code"), [("idle_timeout", "idle_timeout"), ("total_timeout", "total_timeout")])
@pytest.mark.parametrize("begun", [False, True])
def test_limits_end_a_stream_with_their_name(tools: Any, limit: str, code: str, begun: bool) -> None:
    async def silent(call: Any) -> None:
        if begun:
            call.begin_stream()
            call.piece(b"data: 1\n\n")
        await call.client_left()

    async def main() -> None:
        worker = tools.Worker(silent)
        async with tools.lab([worker, tools.Worker(silent)], **{limit: 0.1}) as lab:
            response = await lab.post("/generate", BODY)
            assert response.status == (200 if begun else 504)
            assert json.loads(response.body.rpartition(b"data: ")[2])["error"]["code"] == code
            states = [lab.state(worker) for worker in lab.workers]
            assert sum(state.outcomes["fault"] for state in states) == 1

    tools.run(main())


def test_a_long_answer_that_is_not_streamed_is_not_cut_by_the_idle_limit(tools: Any) -> None:
    async def slow(call: Any) -> None:
        await asyncio.sleep(0.3)  # longer than the idle limit, which must not apply here
        call.answer(b'{"ok": 1}')

    async def main() -> None:
        async with tools.lab([tools.Worker(slow)], idle_timeout=0.05) as lab:
            assert (await lab.post("/generate", b"{}")).body == b'{"ok": 1}'

    tools.run(main())


def test_a_slow_client_slows_its_worker_and_loses_nothing(tools: Any) -> None:
    event = b"data: " + b"x" * 65530 + b"\n\n"
    count = 600

    async def much(call: Any) -> None:
        await slow_reader_safe(call, [event] * count + [b"data: [DONE]\n\n"])
        finished.set()

    finished = asyncio.Event()

    async def main() -> None:
        async with tools.lab([tools.Worker(much)]) as lab:
            client = await lab.client()
            client.writer.transport.pause_reading()
            client.post("/generate", BODY)
            await asyncio.sleep(
                0.2
            )  # time in which an unbounded buffer would swallow 39 MB, more than all sockets hold
            assert not finished.is_set()
            client.writer.transport.resume_reading()
            await client.read_head()
            got = 0
            while piece := await client.read_piece():
                got += len(piece)
            assert got == len(event) * count + len(b"data: [DONE]\n\n")
            client.close()

    tools.run(main())


def test_a_client_that_stops_reading_is_given_up_and_is_neutral(tools: Any) -> None:
    async def much(call: Any) -> None:
        call.begin_stream()
        try:
            while not call.writer.is_closing():
                call.piece(b"data: " + b"x" * 65530 + b"\n\n")
                await call.writer.drain()
        except ConnectionError:
            pass
        left.set()

    left = asyncio.Event()

    async def main() -> None:
        worker = tools.Worker(much)
        async with tools.lab([worker], idle_timeout=0.2) as lab:
            client = await lab.client()
            client.writer.transport.pause_reading()
            client.post("/generate", BODY)
            await left.wait()
            await tools.until(lambda: lab.in_flight == 0, "in-flight back to 0")
            assert lab.state(worker).outcomes == {"success": 0, "fault": 0, "neutral": 1}

    tools.run(main())


def test_one_hung_worker_delays_nobody_else(tools: Any) -> None:
    stuck = asyncio.Event()

    async def hang(call: Any) -> None:
        stuck.set()
        await call.client_left()

    async def main() -> None:
        workers = [tools.Worker(hang), tools.Worker(), tools.Worker()]
        async with tools.lab(workers, policy="least_load", idle_timeout=None, total_timeout=None) as lab:
            while not stuck.is_set():
                (await lab.client()).post("/generate", b"{}")
                await asyncio.sleep(0.005)
            await tools.until(lambda: lab.in_flight == lab.state(workers[0]).in_flight, "the others are done")
            for _ in range(30):
                async with asyncio.timeout(1.0):
                    response = await lab.post("/generate", b"{}")
                    assert response.status == 200
                    assert lab.worker(response) is not workers[0]

    tools.run(main())
