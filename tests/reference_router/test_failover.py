"""What happens to a request when its worker fails before the client has got anything."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest


async def reset(call: Any) -> None:
    call.reset()


async def half_head(call: Any) -> None:
    call.send(b"HTTP/1.1 200 OK\r\nContent-Le")
    await call.flushed_reset()


async def garbage(call: Any) -> None:
    call.send(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")


async def headless_stream(call: Any) -> None:
    call.begin_stream()
    await call.flushed_reset()


async def bare_end(call: Any) -> None:
    call.begin_stream()
    call.end_stream()


def status(line: str) -> Any:
    async def answer(call: Any) -> None:
        call.answer(b'{"error": "worker says no"}', status=line)

    return answer


BEFORE_THE_FIRST_BYTE = [
    reset,
    half_head,
    garbage,
    headless_stream,
    bare_end,
    status("502 Bad Gateway"),
    status("503 Service Unavailable"),
    status("504 Gateway Timeout"),
]


@pytest.mark.parametrize("failure", BEFORE_THE_FIRST_BYTE, ids=lambda f: f.__qualname__)
def test_a_failure_before_the_first_byte_goes_to_an_untried_worker(tools: Any, failure: Any) -> None:
    async def main() -> None:
        bad, good = tools.Worker(failure), tools.Worker()
        async with tools.lab([bad, good], policy="round_robin") as lab:
            body = json.dumps({"text": "x", "stream": True}).encode()
            for _ in range(6):
                response = await lab.post("/generate", body)
                assert (response.status, response.body) == (200, body)
                assert lab.worker(response) is good
            assert 1 <= len(bad.calls) <= 6
            assert len(good.calls) == 6
            assert lab.state(bad).outcomes["fault"] == len(bad.calls)
            assert lab.state(good).outcomes["success"] == 6

    tools.run(main())


def test_a_dead_worker_costs_no_request_and_attempts_are_told(tools: Any) -> None:
    async def main() -> None:
        workers = [tools.Worker() for _ in range(3)]
        async with tools.lab(workers, policy="round_robin", breaker_failures=2) as lab:
            await workers[0].stop()
            responses = [await lab.post("/generate", b'{"text":"%d"}' % i) for i in range(12)]
            assert [r.status for r in responses] == [200] * 12
            assert sorted({r.header("x-gaugeblock-attempts") for r in responses}) == ["1", "2"]
            assert lab.state(workers[0]).breaker.state == "open"

    tools.run(main())


def test_each_worker_sees_a_request_once_and_retries_are_bounded(tools: Any) -> None:
    async def main() -> None:
        workers = [tools.Worker(reset) for _ in range(4)]
        async with tools.lab(workers, retries=2) as lab:
            response = await lab.post("/generate", b'{"text":"x"}')
            assert response.status == 502
            assert response.header("x-gaugeblock-attempts") == "3"
            assert sorted(len(worker.calls) for worker in workers) == [0, 1, 1, 1]

    tools.run(main())


def test_a_worker_that_cannot_be_reached_has_used_no_attempt(tools: Any) -> None:
    async def main() -> None:
        workers = [tools.Worker() for _ in range(5)]
        async with tools.lab(workers, policy="round_robin", retries=1, breaker_failures=1000) as lab:
            for worker in workers[:4]:
                await worker.stop()
            responses = [await lab.post("/generate", b"{}") for _ in range(5)]
            assert [response.status for response in responses] == [200] * 5
            assert max(response.header("x-gaugeblock-attempts") for response in responses) == "5"

    tools.run(main())


def test_a_kept_connection_that_was_closed_is_replaced_once_by_a_new_one(tools: Any) -> None:
    async def silent(call: Any) -> None:
        call.close()

    async def main() -> None:
        worker = tools.Worker()
        async with tools.lab([worker]) as lab:
            assert (await lab.post("/generate", b"{}")).status == 200
            worker.script = silent
            response = await lab.post("/generate", b"{}")
            assert (response.status, len(worker.calls)) == (502, 3)  # a new connection that is closed is no accident
            assert lab.state(worker).outcomes["fault"] == 1

    tools.run(main())


def test_no_retry_means_none(tools: Any) -> None:
    async def main() -> None:
        workers = [tools.Worker(reset) for _ in range(2)]
        async with tools.lab(workers, retries=0) as lab:
            assert (await lab.post("/generate", b"{}")).status == 502
            assert sum(len(worker.calls) for worker in workers) == 1

    tools.run(main())


def test_the_shared_budget_stops_a_storm_of_retries(tools: Any) -> None:
    async def main() -> None:
        workers = [tools.Worker(reset) for _ in range(3)]
        async with tools.lab(workers, retries=2, retry_burst=4, retry_ratio=0.0, breaker_failures=1000) as lab:
            for _ in range(10):
                assert (await lab.post("/generate", b"{}")).status == 502
            assert sum(len(worker.calls) for worker in workers) == 14

    tools.run(main())


def test_the_last_workers_own_refusal_reaches_the_client_unchanged(tools: Any) -> None:
    async def main() -> None:
        workers = [tools.Worker(status("503 Busy")) for _ in range(2)]
        async with tools.lab(workers) as lab:
            response = await lab.post("/generate", b"{}")
            assert response.head.startswith(b"HTTP/1.1 503 Busy\r\n")
            assert response.body == b'{"error": "worker says no"}'
            assert sum(len(worker.calls) for worker in workers) == 2

    tools.run(main())


@pytest.mark.parametrize("line", ["400 Bad Request", "404 Not Found", "422 Unprocessable", "429 Too Many Requests"])
def test_a_4xx_is_passed_on_never_retried_and_opens_no_breaker(tools: Any, line: str) -> None:
    async def main() -> None:
        workers = [tools.Worker(status(line)) for _ in range(2)]
        async with tools.lab(workers, breaker_failures=2) as lab:
            for _ in range(10):
                response = await lab.post("/generate", b"{}")
                assert response.head.startswith(b"HTTP/1.1 " + line.encode() + b"\r\n")
            assert sum(len(worker.calls) for worker in workers) == 10
            assert {lab.state(worker).breaker.state for worker in workers} == {"closed"}
            assert (await lab.ask("GET", "/readiness")).status == 200

    tools.run(main())


def test_a_500_is_a_fault_but_not_retried(tools: Any) -> None:
    async def main() -> None:
        workers = [tools.Worker(status("500 Oops")) for _ in range(2)]
        async with tools.lab(workers) as lab:
            assert (await lab.post("/generate", b"{}")).status == 500
            assert sum(len(worker.calls) for worker in workers) == 1

    tools.run(main())


def test_half_a_body_is_a_real_error_and_no_second_generation(tools: Any) -> None:
    async def half(call: Any) -> None:
        call.send(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"text": "ha')
        await call.flushed_reset()

    async def main() -> None:
        workers = [tools.Worker(half) for _ in range(2)]
        async with tools.lab(workers) as lab:
            response = await lab.post("/generate", b"{}")
            assert response.status == 502
            assert json.loads(response.body)["error"]["code"] == "worker_reset"
            assert sum(len(worker.calls) for worker in workers) == 1

    tools.run(main())


def test_a_retry_aborts_the_orphan_by_its_rid(tools: Any) -> None:
    aborted: asyncio.Queue[Any] = asyncio.Queue()

    async def flaky(call: Any) -> None:
        if call.target == "/abort_request":
            aborted.put_nowait(call)
            call.answer()
        elif call.worker is workers[0]:
            call.reset()
        else:
            call.answer()

    workers = [tools.Worker(flaky), tools.Worker(flaky)]

    async def main() -> None:
        async with tools.lab(workers, policy="round_robin") as lab:
            for _ in range(2):
                assert (await lab.post("/generate", b'{"text": "x", "rid": "r-1"}')).status == 200
            call = await aborted.get()
            assert call.worker is workers[0]
            assert json.loads(call.body) == {"rid": "r-1"}

    tools.run(main())


def test_a_session_follows_a_failover_and_stays(tools: Any) -> None:
    async def main() -> None:
        workers = [tools.Worker() for _ in range(3)]
        async with tools.lab(workers) as lab:
            first = lab.worker(await lab.post("/generate", b"{}", "X-Session-Id: s\r\n"))
            await first.stop()
            moved = [await lab.post("/generate", b"{}", "X-Session-Id: s\r\n") for _ in range(5)]
            assert {r.status for r in moved} == {200}
            assert len({lab.worker(r).url for r in moved}) == 1
            assert lab.worker(moved[0]) is not first
            assert moved[0].header("x-gaugeblock-reason") == "session_repinned"

    tools.run(main())


def test_errors_name_no_worker(tools: Any) -> None:
    async def main() -> None:
        workers = [tools.Worker(reset), tools.Worker(reset)]
        async with tools.lab(workers) as lab:
            response = await lab.post("/v1/chat/completions", b'{"messages": []}')
            assert response.status == 502
            for worker in workers:
                port = worker.url.rpartition(":")[2].encode()
                assert port not in response.head + response.body
                assert b"127.0.0.1" not in response.head + response.body

    tools.run(main())


def test_a_connection_with_bytes_nobody_asked_for_is_not_used_again(tools: Any) -> None:
    async def chatty(call: Any) -> None:
        call.answer(b"{}")
        call.answer(b"smuggled")

    async def main() -> None:
        worker = tools.Worker(chatty)
        async with tools.lab([worker]) as lab:
            client = await lab.client()
            for _ in range(3):
                client.post("/generate", b"{}")
                response = await client.response()
                assert (response.status, response.body) == (200, b"{}")
            assert len({id(call.reader) for call in worker.calls}) == 3

    tools.run(main())


def test_connections_to_a_worker_are_reused(tools: Any) -> None:
    async def main() -> None:
        worker = tools.Worker()
        async with tools.lab([worker]) as lab:
            for _ in range(5):
                assert (await lab.post("/generate", b"{}")).status == 200
            assert len({id(call.reader) for call in worker.calls}) == 1

    tools.run(main())


def test_a_request_that_its_client_has_aborted_is_not_retried(tools: Any) -> None:
    heard = asyncio.Event()

    async def drops(call: Any) -> None:
        if call.target == "/abort_request":
            call.answer()
            heard.set()
        else:
            await heard.wait()
            call.reset()

    async def main() -> None:
        workers = [tools.Worker(drops), tools.Worker(drops)]
        async with tools.lab(workers) as lab:
            running = asyncio.create_task(lab.post("/generate", b'{"text": "x", "rid": "r-1"}'))
            await tools.until(lambda: any(worker.calls for worker in workers), "a worker has it")
            assert (await lab.post("/abort_request", b'{"rid": "r-1"}')).status == 200
            assert (await running).status == 502
            assert sum(call.target == "/generate" for worker in workers for call in worker.calls) == 1
            assert [lab.state(worker).outcomes["fault"] for worker in workers] == [0, 0]

    tools.run(main())
