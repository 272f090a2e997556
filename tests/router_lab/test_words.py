"""What a check asks of pools, rules and keys, said to each known router."""

from __future__ import annotations

import json

import pytest

from gaugeblock.fixtures.targets.router import RouterBench
from gaugeblock.fixtures.targets.router_launch import LabConfig, command_launcher, launcher, reference_launcher
from gaugeblock.fixtures.targets.router_words import ADMIN_KEY, API_KEY, WORKER_KEY, Canary, Rule, Shadow
from gaugeblock.reference.router.config import RouterConfig

URLS = ["http://127.0.0.1:1", "http://127.0.0.1:2"]
WHOLE = LabConfig(
    pools=("main", "next"),
    tiers=("gpu", "cpu"),
    keys=True,
    max_body_bytes=4096,
    rules=(Rule("gold", "next", header=("x-sla", "gold"), path="/generate", min_bytes=7), Rule("rest", "main")),
    experiments=(Canary("canary", "next", 25.0), Shadow("mirror", "next")),
)


def test_the_reference_understands_all_of_it() -> None:
    argv = reference_launcher().build(WHOLE, URLS, 7)
    fields = json.loads(argv[-1])
    del fields["host"], fields["port"]
    config = RouterConfig(**fields)
    assert [(spec.pool, spec.tier) for spec in config.specs] == [("main", "gpu"), ("next", "cpu")]
    gold, rest = config.rules
    assert (gold.pool, gold.match.path, gold.match.min_bytes) == ("next", ("/generate",), 7)
    assert gold.match.headers == {"x-sla": ("gold",)}
    assert rest.pool == "main"
    canary, mirror = config.experiments
    assert (canary.by, canary.variants[0].percent, canary.variants[0].pool) == ("session", 25.0, "next")
    assert mirror.shadow == "next"
    assert config.max_body_bytes == 4096


def test_keys_reach_the_reference_by_its_environment_alone() -> None:
    known = reference_launcher()
    argv = known.build(WHOLE, URLS, 7)
    keys = (API_KEY, ADMIN_KEY, WORKER_KEY)
    assert not any(key in word for word in argv for key in keys)
    fields = json.loads(argv[-1])
    assert known.environ is not None
    told = [known.environ[fields[name]] for name in ("api_keys_env", "admin_key_env", "worker_key_env")]
    assert told == [f"lab:{API_KEY}", ADMIN_KEY, WORKER_KEY]
    assert "api_keys_env" not in json.loads(known.build(LabConfig(), URLS, 7)[-1])


@pytest.mark.parametrize("name", ["smg", "sglang-router"])
def test_the_routers_of_the_market_get_flags(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAUGEBLOCK_SMG", "true")
    monkeypatch.setenv("GAUGEBLOCK_SGLANG_ROUTER", "true")
    argv = launcher(name).build(LabConfig(keys=True, max_body_bytes=4096), URLS, 7)
    assert argv[argv.index("--api-key") + 1] == API_KEY
    assert argv[argv.index("--control-plane-api-keys") + 1] == f"lab:Lab:admin:{ADMIN_KEY}"
    assert argv[argv.index("--max-payload-size") + 1] == "4096"
    plain = launcher(name).build(LabConfig(), URLS, 7)
    assert not {"--api-key", "--max-payload-size"} & set(plain)


def test_a_command_has_no_words_for_it() -> None:
    bench = RouterBench(command_launcher("r {worker_urls} {port}", frozenset({"auth"})))
    try:
        assert "needs keys, max_body_bytes to be set" in bench.beyond(
            LabConfig(keys=True, max_body_bytes=1), fresh=False
        )
        assert bench.beyond(LabConfig(models=("a", "b")), fresh=False) == ""
    finally:
        bench.close()
