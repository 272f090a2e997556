from __future__ import annotations

import json
import re
from typing import Any

import pytest

from gaugeblock.reference.router.config import RouterConfig
from gaugeblock.reference.router.spec import WorkerSpec


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "a worker needs a url"),
        ({"url": "a:1"}, "must look like http://HOST:PORT"),
        ({"url": "http://a", "rol": "decode"}, "a worker has no field 'rol'; its fields are url, role, tier, pool"),
        ({"url": "http://a", "role": "both"}, "role must be one of regular, prefill, decode; got 'both'"),
        ({"url": "http://a", "tier": "tpu"}, "tier must be one of gpu, cpu; got 'tpu'"),
        ({"url": "http://a", "pool": "a b"}, "pool must be 1 to 64 letters"),
        ({"url": "http://a", "models": [""]}, "models must be a name or a list of names, got ['']"),
        ({"url": "http://a", "models": 1}, "models must be a name or a list of names"),
        ({"url": "http://a", "weight": 0}, "weight must be a number > 0; got 0"),
        ({"url": "http://a", "weight": True}, "weight must be a number > 0"),
        ({"url": "http://a", "max_in_flight": 0}, "max_in_flight must be a whole number >= 1 or null; got 0"),
        ({"url": "http://a", "bootstrap_port": 65536}, "bootstrap_port must be a whole number >= 1 and <= 65535"),
    ],
)
def test_what_is_wrong_with_a_worker_is_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        RouterConfig(workers=(fields,))  # type: ignore[arg-type] # as it comes from a file


def test_a_worker_is_declared_once() -> None:
    with pytest.raises(ValueError, match="http://a:80 is declared twice"):
        RouterConfig(worker_urls=("http://a",), workers=(WorkerSpec("http://A:80/", tier="cpu"),))


def test_urls_are_short_for_regular_workers() -> None:
    config = RouterConfig(worker_urls=("http://a",), workers=({"url": "http://b", "models": ["m"]},))  # type: ignore[arg-type] # as it comes from a file
    assert config.specs == (WorkerSpec("http://a:80"), WorkerSpec("http://b", models=("m",)))


def test_a_worker_that_joins_takes_the_same_fields(tools: Any) -> None:
    async def main() -> None:
        spare = tools.Worker()
        await spare.start()
        async with tools.lab([tools.Worker()]) as lab:
            fields = {"url": spare.url, "tier": "cpu", "pool": "small", "models": ["m"], "max_in_flight": 2}
            joined = await lab.ask("POST", "/workers", json.dumps(fields).encode())
            assert joined.status == 202
            shown = json.loads(joined.body)
            assert {name: shown[name] for name in fields} == fields
            assert (shown["role"], shown["weight"]) == ("regular", 1.0)
            again = await lab.ask("POST", "/workers", json.dumps({"url": spare.url}).encode())
            assert again.status == 200
            other = await lab.ask("POST", "/workers", json.dumps({"url": spare.url, "tier": "gpu"}).encode())
            assert other.status == 200  # nothing but the defaults is said
            other = await lab.ask("POST", "/workers", json.dumps({"url": spare.url, "pool": "large"}).encode())
            assert other.status == 400
            assert b"known with other fields" in other.body
        await spare.stop()

    tools.run(main())


def test_declared_models_and_caps_bind(tools: Any) -> None:
    async def main() -> None:
        workers = [
            tools.Worker(spec={"models": ["a"], "max_in_flight": 1}),
            tools.Worker(spec={"models": ["b"]}, models=("told",)),
        ]
        async with tools.lab(workers, queue_size=0) as lab:
            await lab.post("/generate", b'{"model": "a"}')
            await lab.post("/generate", b'{"model": "b"}')
            assert [len(worker.calls) for worker in workers] == [1, 1]
            assert (await lab.post("/generate", b'{"model": "told"}')).status == 404
            registry = lab.server.app.registry
            registry.workers[workers[0].url].in_flight = 1
            assert registry.candidates("a") == []
            assert (await lab.post("/generate", b'{"model": "a"}')).status == 429
            assert registry.readiness("a")["ready"]
            registry.workers[workers[0].url].in_flight = 0

    tools.run(main())


def test_a_cpu_worker_is_the_last_choice(tools: Any) -> None:
    async def main() -> None:
        cpu, gpu = tools.Worker(spec={"tier": "cpu"}), tools.Worker()
        async with tools.lab([cpu, gpu]) as lab:
            registry = lab.server.app.registry
            assert [w.id for w in registry.candidates(None)] == [gpu.url]
            assert [w.id for w in registry.candidates(None, {gpu.url})] == [cpu.url]
            assert [w.id for w in registry.candidates(None, tiers=("cpu",))] == [cpu.url]
            assert registry.candidates(None, role="decode") == []
            assert registry.candidates(None, pool="elsewhere") == []

    tools.run(main())
