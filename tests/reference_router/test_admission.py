"""Waiting for room: who is let in when, who is refused how, and that no room is ever lost."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

GO = b"go"


class Held:
    """A worker's script that answers each call when it is told to; counts what is under way at most."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.most = self.running = self.done = 0
        self._gates: list[asyncio.Event] = []

    async def __call__(self, call: Any) -> None:
        gate = asyncio.Event()
        self.calls.append(call)
        self._gates.append(gate)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await gate.wait()
            call.answer(call.body)
        finally:
            self.running -= 1
            self.done += 1

    def release(self, number: int) -> None:
        self._gates[number].set()

    @property
    def order(self) -> list[str]:
        return [json.loads(call.body)["text"] for call in self.calls]


@asynccontextmanager
async def lab_of(tools: Any, count: int = 1, **config: Any) -> Any:
    """A lab whose workers hold each call; the default is one request at a time."""
    config.setdefault("max_concurrent", 1)
    helds = [Held() for _ in range(count)]
    workers = [tools.Worker(held) for held in helds]
    async with tools.lab(workers, **config) as lab:
        yield lab, helds if count > 1 else helds[0]
        assert lab.server.app.proxy.entry.admission.waiting_bytes == 0


def waiting(lab: Any) -> int:
    return len(lab.server.app.proxy.entry.admission)


async def post(lab: Any, tools: Any, name: str, headers: str = "", *, reach: Callable[[], bool]) -> Any:
    """Send a request and return its client once ``reach()``."""
    client = await lab.client()
    client.post("/generate", json.dumps({"text": name}).encode(), headers)
    await tools.until(reach, f"{name} to get where it belongs")
    return client


async def enqueue(lab: Any, tools: Any, name: str, headers: str = "") -> Any:
    before = waiting(lab)
    return await post(lab, tools, name, headers, reach=lambda: waiting(lab) == before + 1)


async def drain(tools: Any, held: Held, count: int, *, start: int = 0) -> None:
    """Answer ``count`` calls, each as soon as it has reached the worker."""
    for number in range(start, start + count):
        await tools.until(lambda n=number: len(held.calls) > n, f"call {number} to reach the worker")
        held.release(number)


def test_bands_go_first_and_tenants_share(tools: Any) -> None:
    async def main() -> None:
        async with lab_of(tools) as (lab, held):
            clients = [await post(lab, tools, "first", reach=lambda: len(held.calls) == 1)]
            for name, headers in (
                ("low", "x-priority: low\r\n"),
                ("a1", "x-tenant: a\r\n"),
                ("a2", "x-tenant: a\r\n"),
                ("a3", "x-tenant: a\r\n"),
                ("b1", "x-tenant: b\r\n"),
                ("typo", "x-priority: hihg\r\nx-tenant: c\r\n"),
                ("high", "X-Priority: High \r\n"),
            ):
                clients.append(await enqueue(lab, tools, name, headers))
            await drain(tools, held, 8)
            responses = [await client.response() for client in clients]
            assert held.order == ["first", "high", "a1", "b1", "typo", "a2", "a3", "low"]
            assert [r.status for r in responses] == [200] * 8
            assert responses[0].header("x-gaugeblock-queued-ms") is None
            assert all(int(r.header("x-gaugeblock-queued-ms")) >= 0 for r in responses[1:])
            assert lab.server.app.proxy.entry.admission.stats.unknown_bands == 1
            text = (await lab.ask("GET", "/metrics")).body.decode()
            assert 'router_queue_depth{band="low"} 0.0' in text
            assert 'router_queue_seconds_count{band="normal"} 5.0' in text

    tools.run(main())


def test_a_full_queue_refuses_at_once(tools: Any) -> None:
    async def main() -> None:
        async with lab_of(tools, queue_size=2) as (lab, held):
            clients = [await post(lab, tools, "first", reach=lambda: len(held.calls) == 1)]
            clients += [await enqueue(lab, tools, f"w{n}") for n in range(2)]
            refused = await lab.post("/v1/chat/completions", b'{"messages": []}')
            assert refused.status == 429
            assert json.loads(refused.body)["error"]["code"] == "queue_full"
            assert int(refused.header("retry-after")) >= 1
            assert refused.header("x-gaugeblock-reason") == "queue_full"
            await drain(tools, held, 3)
            assert [(await client.response()).status for client in clients] == [200] * 3
            assert held.order == ["first", "w0", "w1"]

    tools.run(main())


def test_the_bound_counts_bytes_too(tools: Any) -> None:
    async def main() -> None:
        async with lab_of(tools, queue_bytes=100) as (lab, held):
            first = await post(lab, tools, "first", reach=lambda: len(held.calls) == 1)
            waits = await enqueue(lab, tools, "x" * 50)
            assert (await lab.post("/generate", json.dumps({"text": "y" * 50}).encode())).status == 429
            await drain(tools, held, 2)
            assert [(await client.response()).status for client in (first, waits)] == [200, 200]

    tools.run(main())


@pytest.mark.parametrize(
    ("headers", "config", "status", "code"),
    [
        ("x-request-timeout: 0.05\r\n", {}, 504, "deadline_passed"),
        ("", {"queue_timeout": 0.05}, 429, "queue_timeout"),
        ("", {"total_timeout": 0.05}, 504, "deadline_passed"),
    ],
)
def test_a_request_leaves_the_queue_when_its_time_is_over(
    tools: Any, headers: str, config: dict[str, Any], status: int, code: str
) -> None:
    async def main() -> None:
        async with lab_of(tools, **config) as (lab, held):
            admission = lab.server.app.proxy.entry.admission
            admission.running += 1  # somebody else's request, so that the time-outs meet only those that wait
            response = await lab.post("/generate", b'{"text": "late"}', headers)
            assert (response.status, json.loads(response.body)["error"]["code"]) == (status, code)
            assert int(response.header("retry-after")) >= 1
            assert (waiting(lab), held.calls) == (0, [])
            admission.running -= 1

    tools.run(main())


@pytest.mark.parametrize("value", ["soon", "nan", "inf", ""])
def test_a_time_out_that_is_no_number_is_refused(tools: Any, value: str) -> None:
    async def main() -> None:
        async with lab_of(tools) as (lab, held):
            response = await lab.post("/generate", b"{}", f"x-request-timeout: {value}\r\n")
            assert response.status == 400
            assert b"x-request-timeout must be a number of seconds" in response.body
            assert not held.calls

    tools.run(main())


def test_a_time_that_is_over_on_arrival_reaches_nobody(tools: Any) -> None:
    async def main() -> None:
        async with lab_of(tools) as (lab, held):
            assert (await lab.post("/generate", b"{}", "x-request-timeout: 0\r\n")).status == 504
            assert (await lab.post("/generate", b"{}", "x-request-timeout: -1\r\n")).status == 504
            assert not held.calls

    tools.run(main())


def test_one_that_cannot_make_it_is_refused_early(tools: Any) -> None:
    async def main() -> None:
        async with lab_of(tools) as (lab, held):
            admission = lab.server.app.proxy.entry.admission
            clients = [await post(lab, tools, "first", reach=lambda: len(held.calls) == 1)]
            clients += [await enqueue(lab, tools, f"w{n}") for n in range(10)]
            await drain(tools, held, 9)
            await tools.until(lambda: len(held.calls) == 10, "nine steps")
            pace = admission._paces[next(iter(admission._gates))]
            pace._mean = 100.0  # as if each of the steps had taken so long
            early = await lab.post("/generate", b"{}", "x-request-timeout: 99\r\n")
            assert (early.status, early.header("retry-after")) == (429, "60")
            assert json.loads(early.body)["error"]["code"] == "deadline_unreachable"
            clients.append(await enqueue(lab, tools, "in time", "x-request-timeout: 101\r\n"))
            clients.append(await enqueue(lab, tools, "urgent", "x-request-timeout: 99\r\nx-priority: high\r\n"))
            await drain(tools, held, 4, start=9)
            assert held.order[10:] == ["urgent", "w9", "in time"]
            assert [(await client.response()).status for client in clients] == [200] * 13

    tools.run(main())


def test_a_client_that_leaves_is_never_sent(tools: Any) -> None:
    async def main() -> None:
        async with lab_of(tools) as (lab, held):
            first = await post(lab, tools, "first", reach=lambda: len(held.calls) == 1)
            gone = await enqueue(lab, tools, "gone")
            stays = await enqueue(lab, tools, "stays")
            gone.close()
            await tools.until(lambda: waiting(lab) == 1, "the one that left to leave the queue")
            await drain(tools, held, 2)
            assert [(await client.response()).status for client in (first, stays)] == [200, 200]
            assert held.order == ["first", "stays"]

    tools.run(main())


def test_an_abort_reaches_a_request_that_waits(tools: Any) -> None:
    async def main() -> None:
        async with lab_of(tools) as (lab, held):
            first = await post(lab, tools, "first", reach=lambda: len(held.calls) == 1)
            clients = [await lab.client() for _ in range(2)]
            for client, rid in zip(clients, ("gone", "stays"), strict=True):
                client.post("/generate", json.dumps({"text": rid, "rid": rid}).encode())
            await tools.until(lambda: waiting(lab) == 2, "both to wait")
            lab.workers[0].script = tools.echo  # for the abort itself
            await lab.ask("POST", "/abort_request", b'{"rid": "gone"}')
            lab.workers[0].script = held
            response = await clients[0].response()
            assert (response.status, json.loads(response.body)["error"]["code"]) == (499, "aborted")
            await drain(tools, held, 2)
            assert [(await client.response()).status for client in (first, clients[1])] == [200, 200]
            assert held.order == ["first", "stays"]

    tools.run(main())


def test_a_client_that_leaves_as_it_is_let_in_gives_the_room_back(tools: Any) -> None:
    async def main() -> None:
        async with lab_of(tools) as (lab, held):
            admission = lab.server.app.proxy.entry.admission
            admission.running += 1
            gone = await enqueue(lab, tools, "gone")
            stays = await enqueue(lab, tools, "stays")
            task = next(c.task for c in lab.server._connections if c.task and c.transport and b"gone" in _body(c))
            admission.running -= 1
            admission.dispatch()  # it holds a lease now, and has not woken
            assert lab.in_flight == 1
            task.cancel()
            await drain(tools, held, 1)
            assert (await stays.response()).status == 200
            assert held.order == ["stays"]
            await tools.until(lambda: admission.running == 0, "no permit is left out")
            gone.close()

    def _body(connection: Any) -> bytes:
        frame = connection.task.get_coro().cr_frame
        return bytes(frame.f_locals["request"].body)

    tools.run(main())


@pytest.mark.parametrize("how", ["answer", "error", "reset", "stream death", "client leaves", "retry"])
def test_room_comes_back_whatever_happens(tools: Any, how: str) -> None:
    """30 requests one at a time: a permit that is not given back stops everything at once."""

    async def end(call: Any) -> None:
        if how == "error":
            call.answer(status="500 Internal Server Error")
        elif how in ("reset", "retry"):
            call.reset()
        elif how == "stream death":
            call.begin_stream()
            call.piece(b"data: 1\n\n")
            await call.flushed_reset()
        elif how == "client leaves":
            await call.client_left()
        else:
            call.answer()

    async def main() -> None:
        workers = [tools.Worker(end) for _ in range(2 if how == "retry" else 1)]
        limits = {"max_concurrent": 1, "worker_max_in_flight": 1, "breaker_failures": 1000, "retry_burst": 100}
        async with tools.lab(workers, **limits) as lab:
            for number in range(30):
                client = await lab.client()
                client.post("/generate", b'{"stream": true}')
                if how == "client leaves":
                    await tools.until(lambda n=number: len(workers[0].calls) == n + 1, "the call")
                else:
                    await client.response()
                client.close()
                await tools.until(lambda: lab.in_flight == 0, "in flight back to 0")
            assert lab.server.app.proxy.entry.admission.running == 0
            assert sum(len(worker.calls) for worker in workers) == (60 if how == "retry" else 30)

    tools.run(main())


def test_caps_hold_and_all_are_served(tools: Any) -> None:
    async def main() -> None:
        async with lab_of(tools, 2, max_concurrent=None, worker_max_in_flight=2) as (lab, helds):
            clients = [await lab.client() for _ in range(20)]
            for number, client in enumerate(clients):
                client.post("/generate", b'{"text": "%d"}' % number)
            for left in range(20, 0, -1):
                room = min(4, left)
                await tools.until(lambda r=room: sum(held.running for held in helds) == r, "the caps to be used")
                held = next(held for held in helds if held.running)
                held.release(next(n for n, gate in enumerate(held._gates) if not gate.is_set()))
                await tools.until(lambda n=21 - left: sum(held.done for held in helds) == n, "it to be answered")
            assert [(await client.response()).status for client in clients] == [200] * 20
            assert max(held.most for held in helds) == 2
            assert sorted(itertools.chain(*(held.order for held in helds))) == sorted(map(str, range(20)))

    tools.run(main())


def test_shadows_keep_to_the_caps(tools: Any) -> None:
    async def main() -> None:
        held = Held()
        main_worker = tools.Worker()
        shadow = tools.Worker(held, spec={"pool": "next", "max_in_flight": 1})
        experiments = [{"name": "try", "shadow": "next", "percent": 100}]
        rules = [{"name": "all", "match": {}, "pool": "default"}]
        async with tools.lab([main_worker, shadow], experiments=experiments, rules=rules) as lab:
            clients = [await lab.client() for _ in range(5)]
            for client in clients:
                client.post("/generate", b'{"text": "x"}')
            assert [(await client.response()).status for client in clients] == [200] * 5
            await tools.until(lambda: len(held.calls) == 1, "one copy")
            assert lab.state(shadow).in_flight == 1
            assert len(main_worker.calls) == 5
            held.release(0)
            await tools.until(lambda: lab.state(shadow).in_flight == 0, "its end")

    tools.run(main())


def test_a_cap_on_one_half_holds_pairs_back(tools: Any) -> None:
    prefill, decode = Held(), Held()
    workers = [
        tools.Worker(prefill, spec={"role": "prefill", "bootstrap_port": 8990, "max_in_flight": 1}),
        tools.Worker(decode, spec={"role": "decode"}),
    ]

    async def main() -> None:
        async with tools.lab(workers) as lab:
            clients = [await lab.client() for _ in range(3)]
            for number, client in enumerate(clients):
                client.post("/generate", b'{"text": "%d"}' % number)
                await tools.until(lambda n=number: waiting(lab) == n, "all but the first to wait")
            for number in range(3):
                await tools.until(lambda n=number: len(prefill.calls) == len(decode.calls) == n + 1, "the pair")
                assert waiting(lab) == 2 - number
                prefill.release(number)
                decode.release(number)
            assert [(await client.response()).status for client in clients] == [200] * 3
            assert prefill.most == 1

    tools.run(main())


def test_a_cap_that_is_declared_at_run_time_binds(tools: Any) -> None:
    async def main() -> None:
        held = Held()
        first, late = tools.Worker(), tools.Worker(held)
        await late.start()
        async with tools.lab([first], policy="round_robin") as lab:
            registry = lab.server.app.registry
            assert not registry.limited
            await lab.ask("POST", "/workers", json.dumps({"url": late.url, "max_in_flight": 1}).encode())
            await tools.until(lambda: registry.workers[late.url].available(), "the late one to be healthy")
            clients = [await lab.client() for _ in range(6)]
            for client in clients:
                client.post("/generate", b"{}")
            await tools.until(lambda: len(first.calls) == 5 and len(held.calls) == 1, "the free one to take the others")
            held.release(0)
            assert [(await client.response()).status for client in clients] == [200] * 6
        await late.stop()

    tools.run(main())


def test_those_that_wait_for_a_worker_that_goes_are_told(tools: Any) -> None:
    async def main() -> None:
        async with lab_of(tools) as (lab, held):
            first = await post(lab, tools, "first", reach=lambda: len(held.calls) == 1)
            waits = await enqueue(lab, tools, "waits")
            url = lab.workers[0].url
            assert (await lab.ask("DELETE", f"/workers/{url}")).status == 202
            response = await waits.response()
            assert response.status == 503
            assert int(response.header("retry-after")) >= 1
            held.release(0)
            assert (await first.response()).status == 200

    tools.run(main())


def test_other_models_do_not_wait_behind_a_full_worker(tools: Any) -> None:
    async def main() -> None:
        a, b = Held(), Held()
        workers = [
            tools.Worker(a, spec={"models": ["a"], "max_in_flight": 1}),
            tools.Worker(b, spec={"models": ["b"], "max_in_flight": 1}),
        ]
        async with tools.lab(workers) as lab:
            clients = [await lab.client() for _ in range(3)]
            for client, model in zip(clients, "aab", strict=True):
                client.post("/generate", json.dumps({"model": model, "text": model}).encode())
                await tools.until(lambda: len(a.calls) == 1, "the first")
            await tools.until(lambda: len(b.calls) == 1 and waiting(lab) == 1, "b to be served while a's second waits")
            b.release(0)
            await drain(tools, a, 2)
            assert [(await client.response()).status for client in clients] == [200] * 3

    tools.run(main())


@pytest.mark.parametrize("patience", [0.0, 5.0])
def test_a_drain_answers_those_that_wait_or_tells_them(tools: Any, patience: float) -> None:
    async def main() -> None:
        async with lab_of(tools, drain_timeout=patience) as (lab, held):
            clients = [await post(lab, tools, "first", reach=lambda: len(held.calls) == 1)]
            clients += [await enqueue(lab, tools, f"w{n}") for n in range(3)]
            stop = asyncio.ensure_future(lab.server.drain())
            if patience:
                await drain(tools, held, 4)
            responses = [await client.response() for client in clients]
            await stop
            lab.server.drain = _nothing
            if patience:
                assert ([r.status for r in responses], held.order) == ([200] * 4, ["first", "w0", "w1", "w2"])
            else:
                assert [r.status for r in responses] == [503] * 4
                assert [r.header("retry-after") for r in responses] == ["1"] * 4
                assert held.order == ["first"]

    tools.run(main())


async def _nothing() -> None:
    return None


def test_the_adaptive_limit_follows_the_latency_of_its_worker(tools: Any) -> None:
    async def main() -> None:
        limits = {"adaptive_target": 0.05, "adaptive_window": 0.001, "adaptive_start": 4, "adaptive_ceiling": 5}
        async with lab_of(tools, max_concurrent=None, **limits) as (lab, held):
            worker = lab.state(lab.workers[0])

            async def wave(wait: float) -> None:
                begun = len(held.calls)
                count = worker.most
                clients = [await lab.client() for _ in range(count + 1)]
                for client in clients:
                    client.post("/generate", b'{"text": "x"}')
                await tools.until(lambda: len(held.calls) == begun + count, "the limit to be used")
                assert waiting(lab) == 1
                await asyncio.sleep(wait)  # the latency is what this test is about
                for number in range(begun, begun + count):
                    held.release(number)
                await drain(tools, held, 1, start=begun + count)
                for client in clients:
                    assert (await client.response()).status == 200

            await wave(0.1)
            assert worker.most == 2
            await wave(0.1)
            assert worker.most == 1
            for _ in range(200):
                if worker.most == 5:
                    break
                await wave(0.0)
            assert worker.most == 5, "it grows back under fast answers"

    tools.run(main())


def test_nothing_configured_leaves_no_trace(tools: Any) -> None:
    async def main() -> None:
        async with tools.lab([tools.Worker()]) as lab:
            response = await lab.post("/generate", b"{}", "x-request-timeout: soon\r\nx-priority: high\r\n")
            assert response.status == 200
            assert b"queued" not in response.head
            assert b"router_queue" not in (await lab.ask("GET", "/metrics")).body

    tools.run(main())
