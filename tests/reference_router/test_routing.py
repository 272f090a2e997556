"""Rules, experiments, shadows and tiers in a running router."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import Any

LARGE = {"pool": "large"}
NEXT = {"pool": "next"}


def test_rules_choose_pool_and_policy_and_the_receipt_says_so(tools: Any) -> None:
    async def main() -> None:
        small, large = tools.Worker(), tools.Worker(spec=LARGE)
        rules = [
            {"name": "long", "match": {"min_bytes": 100}, "pool": "large", "policy": "round_robin"},
            {"name": "rest", "pool": "default"},
        ]
        async with tools.lab([small, large], rules=rules, policy="cache_aware") as lab:
            long = await lab.post("/generate", json.dumps({"text": "x" * 100}).encode())
            short = await lab.post("/generate", b'{"text": "x"}')
            assert (len(large.calls), len(small.calls)) == (1, 1)
            names = ("rule", "pool", "policy", "tier", "variant")
            assert [long.header(f"x-gaugeblock-{name}") for name in names] == [
                *("long", "large", "round_robin", None, None),
            ]
            assert [short.header(f"x-gaugeblock-{name}") for name in names] == [
                *("rest", None, "cache_aware", None, None),
            ]
            metrics = (await lab.ask("GET", "/metrics")).body.decode()
            assert 'router_routed_requests_total{pool="large",rule="long",variant=""} 1.0' in metrics

    tools.run(main())


def test_a_rule_with_a_deadline_ends_the_request(tools: Any) -> None:
    async def silent(call: Any) -> None:
        await call.client_left()

    async def main() -> None:
        worker = tools.Worker(silent)
        rules = [{"name": "quick", "deadline": 0.1}]
        async with tools.lab([worker], rules=rules) as lab:
            answer = await lab.post("/generate")
            assert (answer.status, json.loads(answer.body)["error"]["code"]) == (504, "total_timeout")

    tools.run(main())


def test_a_model_that_a_rules_pool_lacks_is_refused(tools: Any) -> None:
    async def main() -> None:
        workers = [tools.Worker(models=("a",)), tools.Worker(models=("b",), spec=LARGE)]
        async with tools.lab(workers, rules=[{"name": "all", "pool": "large"}]) as lab:
            assert (await lab.post("/generate", b'{"model": "b"}')).status == 200
            refused = await lab.post("/generate", b'{"model": "a"}')
            assert refused.status == 404
            assert "known: b" in json.loads(refused.body)["error"]["message"]

    tools.run(main())


def test_readiness_is_told_by_model_and_by_pool(tools: Any) -> None:
    async def main() -> None:
        workers = [tools.Worker(models=("a",)), tools.Worker(models=("b",), spec=LARGE)]
        async with tools.lab(workers, health_interval=0.02, health_failures=1) as lab:
            workers[1].healthy = False
            await tools.until(lambda: not lab.state(workers[1]).available(), "b unhealthy")
            asked = ("", "?model=a", "?pool=default", "?model=b", "?pool=large", "?pool=other")
            states = [(await lab.ask("GET", f"/readiness{query}")).status for query in asked]
            assert states == [200, 200, 200, 503, 503, 503]
            told = json.loads((await lab.ask("GET", "/readiness")).body)
            assert told["pools"] == {"default": {"available": 1, "total": 1}, "large": {"available": 0, "total": 1}}

    tools.run(main())


def test_a_dead_canary_costs_nothing(tools: Any) -> None:
    async def main() -> None:
        main_, canary = tools.Worker(), tools.Worker(spec=NEXT)
        experiments = [{"name": "c", "variants": [{"name": "new", "percent": 100, "pool": "next"}]}]
        async with tools.lab([main_, canary], experiments=experiments) as lab:
            treated = await lab.post("/generate")
            assert (treated.header("x-gaugeblock-variant"), len(canary.calls)) == ("c/new", 1)
            await canary.stop()  # the router has not noticed yet
            for _ in range(3):
                answer = await lab.post("/generate")
                assert (answer.status, answer.header("x-gaugeblock-variant")) == (200, None)
            assert len(main_.calls) == 3

    tools.run(main())


def test_a_cpu_worker_serves_only_while_no_gpu_worker_may(tools: Any) -> None:
    async def main() -> None:
        gpu, cpu = tools.Worker(), tools.Worker(spec={"tier": "cpu"})
        rules = [{"name": "cheap", "match": {"tenant": "batch"}, "tier": "cpu"}]
        rules += [{"name": "exact", "match": {"tenant": "vip"}, "tier": "gpu"}]
        async with tools.lab([gpu, cpu], rules=rules, health_interval=0.02, health_failures=1) as lab:

            async def ask(tenant: str = "any") -> tuple[int, str | None, str | None]:
                answer = await lab.post("/generate", headers=f"X-Tenant: {tenant}\r\nX-Session-Id: s\r\n")
                names = ("x-gaugeblock-tier", "x-gaugeblock-reason")
                return (answer.status, *(answer.header(name) for name in names))  # type: ignore[return-value] # of two

            assert (await ask())[:2] == (200, "gpu")
            assert (await ask("batch"))[:2] == (200, "cpu")
            assert (await ask("batch"))[2] != "degraded"
            gpu.healthy = False
            await tools.until(lambda: not lab.state(gpu).available(), "gpu unhealthy")
            assert await ask() == (200, "cpu", "degraded")
            assert (await ask("vip"))[0] == 503
            gpu.healthy = True
            await tools.until(lambda: lab.state(gpu).available(), "gpu healthy again")
            before = len(cpu.calls)
            assert {await ask() for _ in range(3)} <= {(200, "gpu", "session_repinned"), (200, "gpu", "session")}
            assert len(cpu.calls) == before
            lab.state(gpu).breaker._open()
            assert (await ask())[1:] == ("cpu", "degraded")

    tools.run(main())


def test_a_full_gpu_worker_spills_over(tools: Any) -> None:
    async def main() -> None:
        go = asyncio.Event()

        async def held(call: Any) -> None:
            await go.wait()
            call.answer()

        gpu, cpu = tools.Worker(held, spec={"max_in_flight": 1}), tools.Worker(spec={"tier": "cpu"})
        async with tools.lab([gpu, cpu]) as lab:
            first = asyncio.create_task(lab.post("/generate"))
            await tools.until(lambda: len(gpu.calls) == 1, "the GPU worker is busy")
            second = await lab.post("/generate")
            assert (second.header("x-gaugeblock-tier"), second.header("x-gaugeblock-reason")) == ("cpu", "degraded")
            go.set()
            assert (await first).header("x-gaugeblock-tier") == "gpu"

    tools.run(main())


def test_bands_prefer_their_tiers(tools: Any) -> None:
    async def main() -> None:
        gpu, cpu = tools.Worker(), tools.Worker(spec={"tier": "cpu", "max_in_flight": 1})
        rules = [
            {"name": "both", "match": {"tenant": "rule"}, "band": "low", "tiers": ["gpu", "cpu"]},
            {"name": "banded", "match": {"tenant": "banded"}, "band": "low"},
        ]
        async with tools.lab([gpu, cpu], rules=rules, band_tiers={"low": ["cpu", "gpu"]}) as lab:

            async def tier(*headers: str) -> str | None:
                answer = await lab.post("/generate", headers="".join(f"{header}\r\n" for header in headers))
                assert answer.header("x-gaugeblock-reason") != "degraded"
                return answer.header("x-gaugeblock-tier")  # type: ignore[no-any-return] # of the lab's answer

            assert await tier() == "gpu"
            assert await tier("X-Priority: high") == "gpu"
            assert await tier("X-Priority: low") == "cpu"
            assert await tier("X-Tenant: banded") == "cpu"
            assert await tier("X-Tenant: rule") == "gpu", "a rule's own tiers outrank those of its band"
            lab.state(cpu).breaker._open()
            assert await tier("X-Priority: low") == "gpu", "not degraded: it got more than it asked for"

    tools.run(main())


def test_a_quality_floor_keeps_requests_off_lower_workers(tools: Any) -> None:
    async def main() -> None:
        gpu, cpu = tools.Worker(spec={"quality": "bf16"}), tools.Worker(spec={"tier": "cpu", "quality": "int8"})
        rules = [{"name": "exact", "match": {"tenant": "exact"}, "floor": "fp32"}]
        async with tools.lab([gpu, cpu], rules=rules, band_tiers={"low": ["cpu"]}) as lab:

            async def ask(*headers: str) -> Any:
                return await lab.post("/generate", headers="".join(f"{header}\r\n" for header in headers))

            low = await ask("X-Priority: low", "X-Quality-Floor: int8")
            assert (low.header("x-gaugeblock-tier"), low.header("x-gaugeblock-quality")) == ("cpu", "int8")
            assert (await ask("X-Quality-Floor: BF16")).header("x-gaugeblock-quality") == "bf16"
            assert (await ask("X-Priority: low", "X-Quality-Floor: bf16")).status == 503, "its band has no such tier"
            lab.state(gpu).breaker._open()
            assert (await ask("X-Quality-Floor: fp8")).status == 503
            assert (await ask()).header("x-gaugeblock-tier") == "cpu"
            refused = await ask("X-Quality-Floor: fp16")
            assert (refused.status, b"int8, bf16" in refused.body) == (400, True)
            assert (await ask("X-Tenant: exact")).status == 400
            assert b"one of int4, int8" in (await ask("X-Quality-Floor: good")).body

    tools.run(main())


def test_where_no_worker_declares_a_quality_no_floor_is_read(tools: Any) -> None:
    async def main() -> None:
        async with tools.lab([tools.Worker()]) as lab:
            answer = await lab.post("/generate", headers="X-Quality-Floor: nonsense\r\n")
            assert (answer.status, answer.header("x-gaugeblock-tier")) == (200, None)

    tools.run(main())


MIRROR = [{"name": "mirror", "shadow": "next"}]


def test_a_shadow_gets_a_copy_and_its_answer_is_dropped(tools: Any) -> None:
    async def loud(call: Any) -> None:
        call.answer(b'{"from": "the shadow"}', "500 Internal Server Error")

    async def main() -> None:
        main_, shadow = tools.Worker(spec={"pool": "main"}), tools.Worker(loud, spec=NEXT)
        rules = [{"name": "all", "pool": "main"}]
        async with tools.lab([main_, shadow], rules=rules, experiments=MIRROR) as lab:
            body = b'{"text": "copy me", "seed": 12345678901234567890}'
            answer = await lab.post("/generate", body, "X-Trace: 7\r\n")
            assert (answer.status, answer.body) == (200, body)
            await tools.until(lambda: len(shadow.calls) == 1 and lab.in_flight == 0, "the copy is over")
            copy = shadow.calls[0]
            assert (copy.body, copy.target) == (body, "/generate")
            assert b"X-Trace: 7" in copy.head
            assert lab.server.app.proxy.shadows.counts == {"sent": 1, "failed": 0, "left_out": 0}
            assert lab.server.app.proxy.retries == 0

    tools.run(main())


def test_shadows_are_bounded_and_nobody_waits_for_them(tools: Any) -> None:
    async def main() -> None:
        cancelled = 0

        async def silent(call: Any) -> None:
            nonlocal cancelled
            await call.client_left()
            cancelled += 1

        main_, shadow = tools.Worker(spec={"pool": "main"}), tools.Worker(silent, spec=NEXT)
        rules = [{"name": "all", "pool": "main"}]
        settings = {"rules": rules, "experiments": MIRROR, "shadow_max_in_flight": 2}
        async with tools.lab([main_, shadow], **settings) as lab:
            for _ in range(4):
                assert (await lab.post("/generate")).status == 200
            await tools.until(lambda: len(shadow.calls) == 2, "two copies")
            assert lab.server.app.proxy.shadows.counts["left_out"] == 2
            await lab.server.drain()
            await tools.until(lambda: cancelled == 2, "the copies are cancelled by the drain")

    tools.run(main())


def test_a_dead_shadow_pool_costs_nothing(tools: Any) -> None:
    async def main() -> None:
        main_, shadow = tools.Worker(spec={"pool": "main"}), tools.Worker(spec=NEXT)
        settings = {"rules": [{"name": "all", "pool": "main"}], "experiments": MIRROR, "breaker_failures": 1}
        async with tools.lab([main_, shadow], **settings) as lab:
            await shadow.stop()
            for _ in range(3):
                assert (await lab.post("/generate")).status == 200
                await tools.until(lambda: lab.in_flight == 0, "the copy has failed")
            assert lab.server.app.proxy.shadows.counts == {"sent": 0, "failed": 1, "left_out": 2}

    tools.run(main())


def test_rules_are_replaced_all_at_once_or_not_at_all(tools: Any) -> None:
    async def main() -> None:
        small, large = tools.Worker(), tools.Worker(spec=LARGE)
        async with tools.lab([small, large], rules=[{"name": "old", "pool": "default"}]) as lab:

            async def rule() -> tuple[str | None, str | None]:
                answer = await lab.post("/generate")
                return answer.header("x-gaugeblock-rule"), answer.header("x-gaugeblock-pool")

            bad = b'[[rules]]\nname = "good"\npool = "large"\n[[rules]]\nname = "bad"\npool = "lage"\n'
            refused = await lab.ask("POST", "/rules", bad)
            assert refused.status == 400
            message = json.loads(refused.body)["error"]["message"]
            assert "the body, line 6: rule 2 ('bad'): pool must be one of default, large; got 'lage'" in message
            assert "the rules in force are unchanged" in message
            assert await rule() == ("old", None)
            assert (await lab.ask("POST", "/rules")).status == 400  # no file to read
            assert (await lab.ask("POST", "/rules", b"\xff")).status == 400
            taken = await lab.ask("POST", "/rules", bad.replace(b"lage", b"large"))
            assert json.loads(taken.body) == {"version": 2, "rules": ["good", "bad"], "experiments": []}
            assert await rule() == ("good", "large")
            assert (await lab.ask("POST", "/rules", b"# none\n")).status == 200
            assert Counter([await rule() for _ in range(2)])[("good", "large")] == 0
            shown = json.loads((await lab.ask("GET", "/rules")).body)
            assert shown == {"version": 3, "rules": [], "experiments": []}

    tools.run(main())
