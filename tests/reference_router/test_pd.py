"""Pairs of a prefill and a decode worker: one transaction, whichever half fails."""

from __future__ import annotations

import asyncio
import json
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

STREAM = b'{"text": "x", "stream": true, "rid": "r-1"}'


async def hang(call: Any) -> None:
    await call.client_left()


async def reset(call: Any) -> None:
    call.reset()


async def stream(call: Any) -> None:
    call.begin_stream()
    call.piece(b'data: {"text": "a"}\n\n')
    call.piece(b"data: [DONE]\n\n")
    call.end_stream()


def says(body: bytes, status: str = "200 OK") -> Any:
    async def answer(call: Any) -> None:
        call.answer(body, status=status)

    return answer


def aborting(script: Any, heard: list[Any]) -> Any:
    """Answer aborts and note them; everything else by ``script``."""

    async def play(call: Any) -> None:
        if call.target == "/abort_request":
            heard.append((call.worker, json.loads(call.body)))
            call.answer()
        else:
            await script(call)

    return play


def pairs(
    tools: Any, prefill: Any, decode: Any, counts: tuple[int, int] = (1, 1), **config: Any
) -> tuple[list[Any], list[Any], AbstractAsyncContextManager[Any]]:
    first = [tools.Worker(prefill, spec={"role": "prefill", "bootstrap_port": 8998}) for _ in range(counts[0])]
    second = [tools.Worker(decode, spec={"role": "decode"}) for _ in range(counts[1])]
    return first, second, tools.lab([*first, *second], **config)


def outcomes(lab: Any, worker: Any) -> dict[str, int]:
    return {str(name): count for name, count in lab.state(worker).outcomes.items() if count}


def test_both_get_the_request_and_decodes_answer_is_the_clients(tools: Any) -> None:
    async def main() -> None:
        first, second, lab_ = pairs(tools, says(b'{"text": "p"}'), says(b'{ "text":"d" }'))
        async with lab_ as lab:
            response = await lab.post("/generate", b'{ "text" : "x" }')
            assert (response.status, response.body) == (200, b'{ "text":"d" }')
            assert response.header("x-gaugeblock-worker") == second[0].url
            assert response.header("x-gaugeblock-prefill-worker") == first[0].url
            (one,), (other,) = first[0].calls, second[0].calls
            assert one.body == other.body
            assert one.body.startswith(b'{ "text" : "x" ,"bootstrap_host":"127.0.0.1","bootstrap_port":8998,')
            assert outcomes(lab, first[0]) == outcomes(lab, second[0]) == {"success": 1}

    tools.run(main())


def test_nothing_reaches_the_client_before_prefill_has_ended(tools: Any) -> None:
    gate = asyncio.Event()

    async def late_refusal(call: Any) -> None:
        await gate.wait()
        call.answer(b'{"error": {"message": "too long"}}', status="400 Bad Request")

    async def main() -> None:
        first, second, lab_ = pairs(tools, late_refusal, stream)
        async with lab_ as lab:
            waiting = asyncio.create_task(lab.post("/generate", STREAM))
            await tools.until(lambda: bool(second[0].calls), "decode has the request")
            await asyncio.sleep(0.05)
            gate.set()
            response = await waiting
            assert (response.status, response.body) == (400, b'{"error": {"message": "too long"}}')
            assert response.header("x-gaugeblock-worker") == first[0].url
            assert outcomes(lab, first[0]) == outcomes(lab, second[0]) == {"neutral": 1}

    tools.run(main())


@pytest.mark.parametrize(
    ("failure", "status", "blame"),
    [
        (reset, 502, "fault"),
        (says(b"{}", "500 Oops"), 500, "fault"),
        (says(b"{}", "400 Bad Request"), 400, "neutral"),
        (says(b'{"meta_info": {"finish_reason": {"type": "abort"}}}'), 200, "neutral"),
        (says(b'{"error": {"message": "no"}}'), 200, "fault"),
    ],
    ids=["reset", "500", "400", "abort", "error"],
)
def test_a_failing_prefill_calls_decode_off(tools: Any, failure: Any, status: int, blame: str) -> None:
    heard: list[Any] = []

    async def main() -> None:
        first, second, lab_ = pairs(tools, aborting(failure, heard), aborting(hang, heard), retries=0)
        async with lab_ as lab:
            response = await lab.post("/generate", b'{"text": "x", "rid": "r-1"}')
            assert response.status == status
            await tools.until(lambda: (second[0], {"rid": "r-1"}) in heard, "decode hears of the abort")
            await tools.until(lambda: lab.in_flight == 0, "nothing in flight")
            assert outcomes(lab, first[0]) == {blame: 1}
            assert outcomes(lab, second[0]) == {"neutral": 1}

    tools.run(main())


@pytest.mark.parametrize(
    ("failure", "status", "blame"),
    [(reset, 502, "fault"), (says(b"{}", "500 Oops"), 500, "fault"), (says(b"{}", "400 Bad"), 400, "neutral")],
    ids=["reset", "500", "400"],
)
def test_a_failing_decode_calls_prefill_off(tools: Any, failure: Any, status: int, blame: str) -> None:
    heard: list[Any] = []

    async def main() -> None:
        first, second, lab_ = pairs(tools, aborting(hang, heard), aborting(failure, heard), retries=0)
        async with lab_ as lab:
            response = await lab.post("/generate", b'{"text": "x", "rid": "r-1"}')
            assert response.status == status
            await tools.until(lambda: (first[0], {"rid": "r-1"}) in heard, "prefill hears of the abort")
            await tools.until(lambda: lab.in_flight == 0, "nothing in flight")
            assert outcomes(lab, first[0]) == {"neutral": 1}
            assert outcomes(lab, second[0]) == {blame: 1}

    tools.run(main())


def test_decode_breaking_while_its_bytes_wait_for_prefill_ends_both(tools: Any) -> None:
    async def dies(call: Any) -> None:
        call.begin_stream()
        call.piece(b'data: {"text": "a"}\n\n')
        await call.flushed_reset()

    async def main() -> None:
        first, second, lab_ = pairs(tools, hang, dies)
        async with lab_ as lab:
            response = await lab.post("/generate", STREAM)
            assert response.status == 502
            assert outcomes(lab, first[0]) == {"neutral": 1}
            assert outcomes(lab, second[0]) == {"fault": 1}

    tools.run(main())


def test_a_hung_prefill_is_found_and_blamed_alone(tools: Any) -> None:
    async def main() -> None:
        first, second, lab_ = pairs(tools, hang, hang, idle_timeout=0.1)
        async with lab_ as lab:
            for body in (STREAM, b'{"text": "x"}'):
                response = await lab.post("/generate", body)
                assert response.status == 504
            assert outcomes(lab, first[0]) == {"fault": 2}
            assert outcomes(lab, second[0]) == {"neutral": 2}

    tools.run(main())


def test_a_decode_that_hangs_after_prefill_is_blamed_alone(tools: Any) -> None:
    async def main() -> None:
        first, second, lab_ = pairs(tools, says(b"{}"), hang, idle_timeout=0.1)
        async with lab_ as lab:
            assert (await lab.post("/generate", STREAM)).status == 504
            assert outcomes(lab, first[0]) == {"success": 1}
            assert outcomes(lab, second[0]) == {"fault": 1}

    tools.run(main())


def test_a_decode_may_be_silent_for_as_long_as_its_prefill_works(tools: Any) -> None:
    ended = asyncio.Event()

    async def slow(call: Any) -> None:
        call.begin_stream()
        for _ in range(6):
            await asyncio.sleep(0.2)
            call.piece(b": busy\n\n")
        call.piece(b"data: [DONE]\n\n")
        call.end_stream()
        ended.set()

    async def after(call: Any) -> None:
        await ended.wait()
        await stream(call)

    async def main() -> None:
        _, _, lab_ = pairs(tools, slow, after, idle_timeout=1.0)
        async with lab_ as lab:
            assert (await lab.post("/generate", STREAM)).status == 200

    tools.run(main())


def test_a_dead_half_costs_the_other_no_work(tools: Any) -> None:
    async def main() -> None:
        first, second, lab_ = pairs(tools, says(b"{}"), says(b"{}"), (2, 2), policy="round_robin", breaker_failures=99)
        async with lab_ as lab:
            await first[0].stop()
            responses = [await lab.post("/generate", b'{"text": "x"}') for _ in range(8)]
            assert {r.status for r in responses} == {200}
            assert sum(len(worker.calls) for worker in second) == 8
            await second[0].stop()
            assert {(await lab.post("/generate", b'{"text": "x"}')).status for _ in range(8)} == {200}
            assert len(first[1].calls) == 16

    tools.run(main())


def test_a_retry_waits_for_the_abort_before_it_reuses_a_half(tools: Any) -> None:
    order: list[str] = []

    async def flaky(call: Any) -> None:
        if call.target == "/abort_request":
            await asyncio.sleep(0.05)
            order.append("abort")
            call.answer()
        elif call.worker.spec["role"] == "decode":
            order.append("decode")
            if order.count("decode") > 1:
                call.answer()
            else:
                await call.client_left()
        elif order.count("prefill"):
            call.answer()
        else:
            order.append("prefill")
            await asyncio.sleep(0.05)
            call.reset()

    async def main() -> None:
        _, _, lab_ = pairs(tools, flaky, flaky, (2, 1))
        async with lab_ as lab:
            response = await lab.post("/generate", b'{"text": "x", "rid": "r-1"}')
            assert response.status == 200
            assert response.header("x-gaugeblock-attempts") == "2"
            assert order[-2:] == ["abort", "decode"]

    tools.run(main())


def test_a_client_that_leaves_frees_both(tools: Any) -> None:
    async def main() -> None:
        first, second, lab_ = pairs(tools, hang, hang)
        async with lab_ as lab:
            client = await lab.client()
            client.post("/generate", STREAM)
            await tools.until(lambda: bool(first[0].calls and second[0].calls), "both have the request")
            assert lab.in_flight == 2
            client.close()
            await tools.until(lambda: lab.in_flight == 0, "both are free")
            assert outcomes(lab, first[0]) == outcomes(lab, second[0]) == {"neutral": 1}

    tools.run(main())


def test_the_count_of_prefill_comes_down_when_prefill_ends(tools: Any) -> None:
    gate = asyncio.Event()

    async def held(call: Any) -> None:
        call.begin_stream()
        call.piece(b'data: {"text": "a"}\n\n')
        await gate.wait()
        call.piece(b"data: [DONE]\n\n")
        call.end_stream()

    async def main() -> None:
        first, second, lab_ = pairs(tools, says(b"{}"), held)
        async with lab_ as lab:
            client = await lab.client()
            client.post("/generate", STREAM)
            await client.read_head()
            assert (lab.state(first[0]).in_flight, lab.state(second[0]).in_flight) == (0, 1)
            gate.set()
            await tools.until(lambda: lab.in_flight == 0, "decode is free")

    tools.run(main())


def test_ready_means_a_pair(tools: Any) -> None:
    async def main() -> None:
        first, second, lab_ = pairs(tools, says(b"{}"), says(b"{}"), breaker_failures=1)
        async with lab_ as lab:
            assert (await lab.ask("GET", "/readiness")).status == 200
            second[0].script = reset
            assert (await lab.post("/generate", b"{}")).status == 502
            response = await lab.ask("GET", "/readiness")
            assert (response.status, response.header("retry-after")) == (503, "10")
            refused = await lab.post("/generate", b"{}")
            assert (refused.status, refused.header("retry-after")) == (503, "10")
            assert lab.state(first[0]).breaker.state == "closed"

    tools.run(main())


def test_other_paths_go_to_a_prefill_worker_or_are_refused(tools: Any) -> None:
    async def main() -> None:
        first, _, lab_ = pairs(tools, tools.echo, says(b"{}"))
        async with lab_ as lab:
            assert (await lab.ask("GET", "/health_generate")).status == 200
            assert (await lab.post("/tokenize", b'{"prompt":"x"}')).body == b'{"prompt":"x"}'
            assert [call.target for call in first[0].calls[-2:]] == ["/health_generate", "/tokenize"]
            response = await lab.post("/v1/embeddings", b'{"input":"x"}')
            assert response.status == 501
            assert b"/v1/chat/completions" in response.body
            assert (await lab.post("/generate", b"[1]")).status == 400

    tools.run(main())


def test_regular_workers_of_another_pool_serve_beside_pairs(tools: Any) -> None:
    async def main() -> None:
        alone = tools.Worker(says(b'"alone"'), models=("a",), spec={"pool": "other", "models": ["a"]})
        prefill = tools.Worker(says(b"{}"), spec={"role": "prefill", "models": ["b"]})
        decode = tools.Worker(says(b'"pair"'), spec={"role": "decode", "models": ["b"]})
        async with tools.lab([alone, prefill, decode]) as lab:
            assert (await lab.post("/generate", b'{"model": "a"}')).body == b'"alone"'
            assert (await lab.post("/generate", b'{"model": "b"}')).body == b'"pair"'
            body = json.dumps({"url": "http://127.0.0.1:9", "role": "decode", "pool": "other"}).encode()
            refused = await lab.post("/workers", body)
            assert refused.status == 400
            assert b"pools of their own" in refused.body

    tools.run(main())


def test_the_prompts_logprobs_come_from_prefill(tools: Any) -> None:
    prefill = b'{"text": "p", "meta_info": {"input_token_logprobs": [[-1.5, 3, null]]}}'
    decode = '{"text": "dü", "meta_info": {"input_token_logprobs": [[-2, 4, null]], "id": "i"}}'.encode()
    merged = {"input_token_logprobs": [[-1.5, 3, None], [-2, 4, None]], "id": "i"}

    async def decodes(call: Any) -> None:
        if b'"stream"' in call.body:
            call.begin_stream()
            call.piece(b"data: " + decode + b"\n\n")
            call.piece(b"data: [DONE]\n\n")
            call.end_stream()
        else:
            call.answer(decode)

    async def main() -> None:
        _, _, lab_ = pairs(tools, says(prefill), decodes)
        async with lab_ as lab:
            assert (await lab.post("/generate", b'{"text": "x"}')).body == decode
            asked = await lab.post("/generate", b'{"text": "x", "return_logprob": true}')
            assert json.loads(asked.body) == {"text": "dü", "meta_info": merged}
            streamed = await lab.post("/generate", b'{"text": "x", "return_logprob": true, "stream": true}')
            event, end = streamed.body.split(b"\n\n", 1)
            assert json.loads(event.removeprefix(b"data: "))["meta_info"] == merged
            assert end == b"data: [DONE]\n\n"

    tools.run(main())


@pytest.mark.parametrize("balance", ["follow_bootstrap_room", "round_robin"])
def test_a_session_stays_on_its_rank(tools: Any, balance: str) -> None:
    info = json.dumps({"dp_size": 4, "load_balance_method": balance, "disaggregation_bootstrap_port": 7}).encode()

    def rank(call: Any) -> int:
        data = json.loads(call.body)
        return int(data["routed_dp_rank"] if balance == "round_robin" else data["bootstrap_room"] % 4)

    async def main() -> None:
        first, second, lab_ = pairs(tools, says(b"{}"), says(b"{}"))
        first[0].info = info
        async with lab_ as lab:
            for turn in range(20):
                await lab.post("/generate", b'{"text": "x%d"}' % turn, f"X-Session-Id: s{turn % 5}\r\n")
            ranks = [rank(call) for call in first[0].calls]
            assert ranks == ranks[:5] * 4
            assert len(set(ranks)) > 1
            told = [json.loads(call.body).get("disagg_prefill_dp_rank") for call in second[0].calls]
            assert told == (ranks if balance == "round_robin" else [None] * 20)
            named = [await lab.post("/generate", b'{"routed_dp_rank": 2}') for _ in range(3)]
            assert {r.header("x-gaugeblock-prefill-worker") for r in named} == {f"{first[0].url}@2"}
            assert all(json.loads(call.body)["bootstrap_room"] % 4 == 2 for call in first[0].calls[-3:])
            assert not any(lab.state(first[0]).rank_load.values())

    tools.run(main())


@pytest.mark.parametrize("side", [0, 1], ids=["prefill", "decode"])
def test_a_kept_connection_that_closes_as_it_is_used_again_fails_nobody(tools: Any, side: int) -> None:
    def closing(body: bytes) -> Any:
        async def once(call: Any) -> None:
            call.answer(body)
            await call.reader.readuntil(b"\r\n\r\n")  # the next request comes too late: it closes in good order
            await call.flushed_reset()

        return once

    async def main() -> None:
        scripts = [says(b'"p"'), says(b'"d"')]
        scripts[side] = closing(b'"pd"')
        first, second, lab_ = pairs(tools, *scripts)
        async with lab_ as lab:
            for _ in range(3):
                assert (await lab.post("/generate", STREAM)).status == 200
            assert outcomes(lab, first[0]) == outcomes(lab, second[0]) == {"success": 3}
            other = (second, first)[side][0]
            assert len(other.calls) == 3

    tools.run(main())


def test_a_request_that_is_called_off_goes_to_others_where_there_are_any(tools: Any) -> None:
    begun: list[Any] = []
    waiting = asyncio.Event()

    async def dies_once(call: Any) -> None:
        begun.append(call)
        if len(begun) == 1:
            await waiting.wait()
            call.reset()
        else:
            call.answer()

    async def waits_once(call: Any) -> None:
        if waiting.is_set():
            call.answer(b'"again"')
        else:
            waiting.set()
            await call.client_left()

    async def main() -> None:
        _, second, lab_ = pairs(tools, dies_once, waits_once, (3, 3), policy="round_robin")
        async with lab_ as lab:
            response = await lab.post("/generate", b'{"text": "x"}')
            assert (response.status, response.body) == (200, b'"again"')
            assert sorted(len(worker.calls) for worker in second) == [0, 1, 1]

    tools.run(main())
