"""The router's own endpoints tell the truth."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from random import Random
from typing import Any
from urllib.parse import quote

import pytest
from prometheus_client.parser import text_string_to_metric_families


async def fail(call: Any) -> None:
    call.answer(status="500 Oops")


def test_readiness_knows_of_open_breakers_and_says_when_to_come_back(tools: Any) -> None:
    async def main() -> None:
        workers = [tools.Worker(fail, models=("m",)) for _ in range(2)]
        async with tools.lab(workers, breaker_failures=1, policy="round_robin") as lab:
            assert (await lab.ask("GET", "/readiness")).status == 200
            for _ in range(2):
                await lab.post("/generate", b"{}")
            response = await lab.ask("GET", "/readiness")
            state = json.loads(response.body)
            assert (response.status, state["ready"], state["unavailable"]) == (503, False, {"breaker_open": 2})
            assert state["models"] == {"m": {"available": 0, "total": 2}}
            refused = await lab.post("/generate", b"{}")
            assert refused.status == 503
            assert json.loads(refused.body)["error"]["code"] == "no_available_worker"
            assert 1 <= int(refused.header("retry-after")) <= 10
            assert (await lab.ask("GET", "/liveness")).status == 200

    tools.run(main())


def test_a_probe_closes_a_breaker_again(tools: Any) -> None:
    async def main() -> None:
        worker = tools.Worker(tools.script(fail, tools.echo))
        async with tools.lab([worker], breaker_failures=1, breaker_cooldown=0.05) as lab:
            assert (await lab.post("/generate", b"{}")).status == 500
            assert (await lab.post("/generate", b"{}")).status == 503
            await tools.until(lambda: lab.state(worker).available(), "half open")
            assert (await lab.ask("GET", "/readiness")).status == 200
            assert (await lab.post("/generate", b"{}")).status == 200
            assert lab.state(worker).breaker.state == "closed"

    tools.run(main())


def test_no_worker_at_all(tools: Any) -> None:
    async def main() -> None:
        async with tools.lab([]) as lab:
            for path in ("/generate", "/v1/chat/completions"):
                response = await lab.post(path, b'{"model": "m"}')
                assert (response.status, bool(response.header("retry-after"))) == (503, True)
            for path, status in (
                ("/readiness", 503),
                ("/get_model_info", 503),
                ("/flush_cache", 503),
                ("/health", 200),
            ):
                assert (await lab.ask("GET", path)).status == status

    tools.run(main())


def test_unhealthy_workers_get_no_traffic_until_they_are_well(tools: Any) -> None:
    async def main() -> None:
        sick, well = tools.Worker(healthy=False), tools.Worker()
        async with tools.lab([sick, well], ready=False) as lab:
            await tools.until(
                lambda: lab.state(well).available() and lab.state(sick).reason() == "unhealthy", "checked"
            )
            for _ in range(10):
                assert (await lab.post("/generate", b"{}")).status == 200
            assert not sick.calls
            sick.healthy = True
            await tools.until(lambda: lab.state(sick).available(), "recovered")

    tools.run(main())


def test_a_worker_that_dies_is_found_by_its_health_checks(tools: Any) -> None:
    async def main() -> None:
        worker = tools.Worker()
        async with tools.lab([worker], health_interval=0.02, health_failures=2) as lab:
            await worker.stop()
            await tools.until(lambda: lab.state(worker).reason() == "unhealthy", "unhealthy")
            assert (await lab.ask("GET", "/readiness")).status == 503

    tools.run(main())


def test_models_scope_requests(tools: Any) -> None:
    async def main() -> None:
        workers = [tools.Worker(models=("one",)), tools.Worker(models=("two", "shared"))]
        async with tools.lab(workers) as lab:
            for _ in range(5):
                response = await lab.post("/v1/chat/completions", b'{"model": "two"}')
                assert lab.worker(response) is workers[1]
            listed = json.loads((await lab.ask("GET", "/v1/models")).body)
            assert [entry["id"] for entry in listed["data"]] == ["one", "two", "shared"]
            unknown = await lab.post("/v1/chat/completions", b'{"model": "three"}')
            assert unknown.status == 404
            assert "one, shared, two" in json.loads(unknown.body)["error"]["message"]
            assert (await lab.ask("GET", "/readiness?model=three")).status == 503
            assert (await lab.ask("GET", "/readiness?model=one")).status == 200

    tools.run(main())


def test_workers_that_do_not_tell_take_any_model(tools: Any) -> None:
    async def main() -> None:
        async with tools.lab([tools.Worker()]) as lab:
            assert (await lab.post("/v1/chat/completions", b'{"model": "any"}')).status == 200

    tools.run(main())


def test_workers_join_and_leave_at_run_time(tools: Any) -> None:
    async def main() -> None:
        old, new = tools.Worker(), tools.Worker()
        await new.start()
        async with tools.lab([old]) as lab:
            body = json.dumps({"url": new.url}).encode()
            assert (await lab.ask("POST", "/workers", body)).status == 202
            assert (await lab.ask("POST", "/workers", body)).status == 200
            await tools.until(lambda: lab.state(new).available(), "the new worker is healthy")
            assert json.loads((await lab.ask("GET", "/workers")).body)["total"] == 2
            assert (await lab.ask("DELETE", f"/workers/{quote(old.url, safe='')}")).status == 200
            assert (await lab.ask("DELETE", f"/workers/{old.url}")).status == 404
            for _ in range(5):
                assert (await lab.post("/generate", b"{}")).status == 200
            assert (len(old.calls), len(new.calls)) == (0, 5)
            assert (await lab.ask("GET", f"/workers/{new.url}")).status == 200
        await new.stop()

    tools.run(main())


@pytest.mark.parametrize("body", [b"", b"[]", b'{"url": 5}', b'{"url": "nonsense"}', b'{"url": "http://a:1/x"}'])
def test_garbage_is_not_added(tools: Any, body: bytes) -> None:
    async def main() -> None:
        async with tools.lab([]) as lab:
            response = await lab.ask("POST", "/workers", body)
            assert response.status == 400
            assert "http://HOST:PORT" in json.loads(response.body)["error"]["message"]
            assert not lab.server.app.registry.workers

    tools.run(main())


def test_a_leaving_worker_finishes_its_streams_first(tools: Any) -> None:
    go = asyncio.Event()

    async def stream(call: Any) -> None:
        call.begin_stream()
        call.piece(b"data: 1\n\n")
        await go.wait()
        call.piece(b"data: [DONE]\n\n")
        call.end_stream()

    async def main() -> None:
        worker = tools.Worker(stream)
        async with tools.lab([worker]) as lab:
            client = await lab.client()
            client.post("/generate", b'{"stream": true}')
            await client.read_head()
            assert (await lab.ask("DELETE", f"/workers/{worker.url}")).status == 202
            assert (await lab.post("/generate", b"{}")).status == 503
            go.set()
            assert [await client.read_piece() for _ in range(3)] == [b"data: 1\n\n", b"data: [DONE]\n\n", b""]
            await tools.until(lambda: not lab.server.app.registry.workers, "gone")
            client.close()

    tools.run(main())


@pytest.mark.parametrize("path", ["/flush_cache", "/abort_request"])
def test_orders_to_all_succeed_only_if_all_do(tools: Any, path: str) -> None:
    async def refuse(call: Any) -> None:
        call.answer(status="400 Bad Request")

    async def main() -> None:
        workers = [tools.Worker(), tools.Worker()]
        async with tools.lab(workers) as lab:
            assert (await lab.ask("POST", path, b'{"rid": "r"}')).status == 200
            assert [call.target for worker in workers for call in worker.calls] == [path, path]
            workers[1].script = refuse
            response = await lab.ask("POST", path, b'{"rid": "r"}')
            assert response.status == 502
            assert json.loads(response.body)["failed"] == 1

    tools.run(main())


def test_a_flush_empties_the_predictions(tools: Any) -> None:
    async def main() -> None:
        async with tools.lab([tools.Worker(), tools.Worker()]) as lab:
            body = b'{"text": "%s"}' % (b"abcdefgh" * 50)
            await lab.post("/generate", body)
            await lab.ask("POST", "/flush_cache")
            assert (await lab.post("/generate", body)).header("x-gaugeblock-reason") == "miss"

    tools.run(main())


def test_loads_and_metrics_count_what_is_in_flight(tools: Any) -> None:
    async def hang(call: Any) -> None:
        await call.client_left()

    async def main() -> None:
        worker = tools.Worker(hang)
        async with tools.lab([worker]) as lab:
            paths = ("/generate", "/v1/completions", "/v1/embeddings", "/tokenize", "/v1/whatever")
            clients = [await lab.client() for _ in paths]
            for client, path in zip(clients, paths, strict=True):
                client.post(path, b"{}")
            await tools.until(lambda: len(worker.calls) == len(paths), "all arrived")
            loads = json.loads((await lab.ask("GET", "/get_loads")).body)
            assert loads == {"workers": [{"worker": worker.url, "load": len(paths)}]}
            for client in clients:
                client.close()
            await tools.until(lambda: lab.in_flight == 0, "in-flight back to 0")
            text = (await lab.ask("GET", "/metrics")).body.decode()
            samples = {
                (s.name, *s.labels.values()): s.value for f in text_string_to_metric_families(text) for s in f.samples
            }
            assert samples["router_worker_in_flight", worker.url] == 0
            assert samples["router_attempts_total", "neutral", worker.url] == len(paths)
            assert samples["router_requests_total", "other", "left"] == 1

    tools.run(main())


def test_metric_labels_do_not_grow_with_what_clients_send(tools: Any) -> None:
    async def main() -> None:
        async with tools.lab([tools.Worker()]) as lab:
            for i in range(30):
                await lab.post(f"/v1/x{i}", b'{"model": "m%d"}' % i)
                await lab.post(f"/nowhere{i}", b"{}")
            text = (await lab.ask("GET", "/metrics")).body.decode()
            assert sum(line.startswith("router_requests_total{") for line in text.splitlines()) == 1

    tools.run(main())


def test_sixty_unrelated_prompts_in_a_row_spread(tools: Any) -> None:
    async def main() -> None:
        workers = [tools.Worker() for _ in range(3)]
        async with tools.lab(workers) as lab:
            rng = Random(3)
            for _ in range(60):
                await lab.post("/generate", b'{"text": "%s"}' % rng.randbytes(100).hex().encode())
            counts = [len(worker.calls) for worker in workers]
            assert min(counts) >= 9, counts

    tools.run(main())


@pytest.mark.parametrize("where", ["x-session-id", "X-SMG-Routing-Key", "session_id", "user"])
def test_shuffled_sessions_keep_their_workers(tools: Any, where: str) -> None:
    async def main() -> None:
        workers = [tools.Worker() for _ in range(3)]
        async with tools.lab(workers, policy="random") as lab:
            homes: dict[str, Counter[str]] = {}
            for key in Random(5).sample([f"s{i}" for i in range(12)] * 5, 60):
                inside = where in ("session_id", "user")
                body = json.dumps({where: key}).encode() if inside else b"{}"
                response = await lab.post("/v1/completions", body, "" if inside else f"{where}: {key}\r\n")
                homes.setdefault(key, Counter())[lab.worker(response).url] += 1
            assert all(len(home) == 1 for home in homes.values()), homes
            assert len({next(iter(home)) for home in homes.values()}) == 3

    tools.run(main())
