"""Rules and experiments where a pool has prefill and decode workers."""

from __future__ import annotations

import json
from typing import Any

SPLIT = {"pool": "split"}
LONG = json.dumps({"text": "x" * 100}).encode()


def fleet(tools: Any) -> tuple[Any, Any, Any]:
    """Return a regular worker and a pair in a pool of their own."""
    prefill = tools.Worker(spec={**SPLIT, "role": "prefill", "bootstrap_port": 8998})
    return tools.Worker(), prefill, tools.Worker(spec={**SPLIT, "role": "decode"})


def test_a_rule_sends_long_prompts_to_pairs(tools: Any) -> None:
    async def main() -> None:
        regular, prefill, decode = fleet(tools)
        rules = [{"name": "long", "match": {"min_bytes": 100}, "pool": "split"}, {"name": "rest", "pool": "default"}]
        async with tools.lab([regular, prefill, decode], rules=rules) as lab:
            long = await lab.post("/generate", LONG)
            assert (long.status, len(prefill.calls), len(decode.calls)) == (200, 1, 1)
            assert (long.header("x-gaugeblock-rule"), long.header("x-gaugeblock-pool")) == ("long", "split")
            short = await lab.post("/generate", b'{"text": "x"}')
            assert (short.header("x-gaugeblock-worker"), len(prefill.calls)) == (regular.url, 1)

    tools.run(main())


def test_a_canary_of_pairs_is_passed_over_while_half_of_it_is_gone(tools: Any) -> None:
    async def main() -> None:
        regular, prefill, decode = fleet(tools)
        settings = {
            "rules": [{"name": "rest", "pool": "default"}],
            "experiments": [{"name": "c", "variants": [{"name": "pd", "percent": 100, "pool": "split"}]}],
            "health_interval": 0.02,
            "health_failures": 1,
        }
        async with tools.lab([regular, prefill, decode], **settings) as lab:
            treated = await lab.post("/generate", LONG)
            assert (treated.header("x-gaugeblock-variant"), len(decode.calls)) == ("c/pd", 1)
            decode.healthy = False
            await tools.until(lambda: not lab.state(decode).available(), "decode unhealthy")
            plain = await lab.post("/generate", LONG)
            assert (plain.status, plain.header("x-gaugeblock-variant")) == (200, None)
            assert plain.header("x-gaugeblock-worker") == regular.url

    tools.run(main())


def test_without_a_rule_a_request_goes_where_it_can(tools: Any) -> None:
    async def main() -> None:
        regular, prefill, decode = fleet(tools)
        async with tools.lab([regular, prefill, decode], health_interval=0.02, health_failures=1) as lab:
            assert (await lab.post("/generate", LONG)).header("x-gaugeblock-worker") == regular.url
            regular.healthy = False
            await tools.until(lambda: not lab.state(regular).available(), "the regular worker is unhealthy")
            paired = await lab.post("/generate", LONG)
            assert (paired.status, paired.header("x-gaugeblock-pool"), len(prefill.calls)) == (200, "split", 1)

    tools.run(main())
