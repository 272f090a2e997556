"""Warm-ups: before a worker's first traffic, ahead of a burst, and never counted as anybody's request."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

SYSTEM = "You are a helpful assistant of the harbour office. " * 4


def post_all(lab: Any, count: int, text: str = SYSTEM) -> Any:
    async def send() -> list[Any]:
        return [await lab.post("/generate", json.dumps({"text": f"{text}{n}"}).encode()) for n in range(count)]

    return send()


async def join(lab: Any, tools: Any, worker: Any) -> Any:
    await worker.start()
    assert (await lab.ask("POST", "/workers", json.dumps({"url": worker.url}).encode())).status == 202
    return lab.server.app.registry.workers[worker.url]


def warm_calls(worker: Any) -> list[dict[str, Any]]:
    bodies = [json.loads(call.body) for call in worker.calls]
    return [body for body in bodies if body.get("sampling_params", {}).get("max_new_tokens") == 1]


def test_a_worker_that_joins_has_the_hot_prefix_before_its_first_request(tools: Any) -> None:
    gate = asyncio.Event()

    async def held(call: Any) -> None:
        if b"max_new_tokens" in call.body:
            await gate.wait()
        call.answer(call.body)

    async def main() -> None:
        old, new = tools.Worker(), tools.Worker(held)
        async with tools.lab([old], warm_prefixes=2, warm_head_bytes=64, policy="round_robin") as lab:
            await post_all(lab, 3)
            state = await join(lab, tools, new)
            await tools.until(lambda: bool(new.calls), "the warm-up")
            assert (state.health, state.available(), state.reason()) == ("warming", False, "warming")
            await post_all(lab, 4)
            assert len(new.calls) == 1, "it gets no traffic while it is being warmed"
            gate.set()
            await tools.until(state.available, "it to join")
            assert [body["text"] for body in warm_calls(new)] == [SYSTEM]
            await post_all(lab, 4)
            assert len(new.calls) == 3
            assert sum(state.outcomes.values()) == 2, "warm-ups are no attempts"
            text = (await lab.ask("GET", "/metrics")).body.decode()
            assert 'router_warm_ups_total{outcome="success"} 1.0' in text
            assert 'router_requests_total{route="/generate",status="2xx"} 11.0' in text
        await new.stop()

    tools.run(main())


@pytest.mark.parametrize("how", ["error", "reset", "hang"])
def test_a_warm_up_that_fails_does_not_keep_the_worker_out(tools: Any, how: str) -> None:
    async def bad(call: Any) -> None:
        if b"max_new_tokens" not in call.body:
            call.answer(call.body)
        elif how == "error":
            call.answer(status="500 Internal Server Error")
        elif how == "reset":
            call.reset()
        else:
            await call.client_left()

    async def main() -> None:
        worker = tools.Worker(bad)
        limits = {"warm_timeout": 0.1, "breaker_failures": 1}
        async with tools.lab([tools.Worker()], warm_prefixes=1, warm_head_bytes=64, **limits) as lab:
            await post_all(lab, 3)
            state = await join(lab, tools, worker)
            await tools.until(state.available, "the worker to join")
            assert state.breaker.state == "closed"
            assert lab.server.app.warmer.outcomes == {"success": 0, "failure": 1}
        await worker.stop()

    tools.run(main())


def test_a_file_names_prompts_and_concurrency_is_bounded(tools: Any, tmp_path: Path) -> None:
    running = most = 0

    async def count(call: Any) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        call.answer(call.body)

    async def main() -> None:
        file = tmp_path / "prompts"
        file.write_text("\n".join(json.dumps(f"prompt {n} {SYSTEM}") for n in range(9)))
        worker = tools.Worker(count)
        async with tools.lab([worker], warm_file=str(file), warm_concurrency=3) as lab:
            assert sorted(body["text"][:8] for body in warm_calls(worker)) == [f"prompt {n}" for n in range(9)]
            assert most <= 3
            response = await lab.post("/generate", json.dumps({"text": f"prompt 4 {SYSTEM}"}).encode())
            assert int(response.header("x-gaugeblock-predicted-prefix")) > 100, "the policy was taught"

    tools.run(main())


def test_prewarm_replicates_a_prefix_to_the_idlest_and_teaches_the_policy(tools: Any) -> None:
    async def main() -> None:
        workers = [tools.Worker() for _ in range(3)]
        async with tools.lab(workers, policy="cache_aware") as lab:
            lab.state(workers[0]).in_flight += 5
            order = {"prompts": [SYSTEM, {"text": SYSTEM[::-1]}], "sessions": ["s0", "s1"], "workers": 2}
            response = await lab.ask("POST", "/prewarm", json.dumps(order).encode())
            lab.state(workers[0]).in_flight -= 5
            assert response.status == 200
            told = json.loads(response.body)
            assert [(entry["warmed"], entry["failed"]) for entry in told["workers"]] == [(2, 0)] * 2
            assert [len(warm_calls(worker)) for worker in workers] == [0, 2, 2]
            homes = [lab.worker(r) for r in await post_all(lab, 8)]
            assert workers[0] not in homes
            sessions = [await lab.post("/generate", b"{}", f"x-session-id: s{n}\r\n") for n in range(2)]
            assert {lab.worker(r).url for r in sessions} == {worker.url for worker in workers[1:]}
            assert sum(sum(lab.state(worker).outcomes.values()) for worker in workers) == 10

    tools.run(main())


def test_prewarm_takes_no_more_room_than_there_is(tools: Any) -> None:
    most = running = 0

    async def count(call: Any) -> None:
        nonlocal most, running
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1
        call.answer(call.body)

    async def main() -> None:
        async with tools.lab([tools.Worker(count)], worker_max_in_flight=2) as lab:
            order = json.dumps({"prompts": [f"{n} {SYSTEM}" for n in range(12)]}).encode()
            warm = asyncio.ensure_future(lab.ask("POST", "/prewarm", order))
            clients = [await lab.client() for _ in range(6)]
            for client in clients:
                client.post("/generate", b"{}")
            assert [(await client.response()).status for client in clients] == [200] * 6
            assert (await warm).status == 200
            assert most == 2

    tools.run(main())


@pytest.mark.parametrize(
    ("order", "message"),
    [
        (b"[]", "the body must be"),
        (b"{", "the body must be"),
        (b"{}", "prompts and sessions must be lists, one of them not empty"),
        (b'{"prompts": "x"}', "prompts and sessions must be lists"),
        (b'{"prompts": [1]}', "a prompt must be a string, or an object with one of messages, prompt, text, input_ids"),
        (b'{"prompts": ["x"], "workers": 0}', "workers must be a whole number >= 1; got 0"),
        (b'{"prompts": ["x"], "worker": 1}', "there is no field 'worker'"),
        (b'{"sessions": [""]}', "each of sessions must be the key of a session"),
        (b'{"prompts": ["x"], "model": 1}', "model must be a name"),
        (b'{"prompts": ["x", {"text": "y", "model": "m"}]}', "all prompts must name the same model; got None, m"),
    ],
)
def test_a_bad_order_is_told_what_is_legal(tools: Any, order: bytes, message: str) -> None:
    async def main() -> None:
        async with tools.lab([tools.Worker()]) as lab:
            response = await lab.ask("POST", "/prewarm", order)
            assert response.status == 400
            assert message in json.loads(response.body)["error"]["message"]

    tools.run(main())


def test_nobody_to_warm_is_said(tools: Any) -> None:
    async def main() -> None:
        async with tools.lab([tools.Worker(healthy=False)], ready=False) as lab:
            response = await lab.ask("POST", "/prewarm", b'{"prompts": ["x"]}')
            assert response.status == 503
            assert response.header("retry-after") is not None

    tools.run(main())
