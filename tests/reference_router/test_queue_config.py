"""What may be configured of limits and the queue, and what the messages say otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gaugeblock.reference.router.config import RouterConfig
from gaugeblock.reference.router.config_file import load_config
from gaugeblock.reference.router.demand import Demand, Demands
from gaugeblock.reference.router.rules import Route


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_concurrent": 0}, "max_concurrent must be a whole number >= 1 or null; got 0"),
        ({"worker_max_in_flight": True}, "worker_max_in_flight must be a whole number >= 1 or null; got True"),
        ({"queue_size": -1}, "queue_size must be a whole number >= 0; got -1"),
        ({"queue_timeout": 0}, "queue_timeout must be a number > 0 or null for no limit; got 0"),
        ({"adaptive_target": float("nan")}, "adaptive_target must be a number > 0"),
        ({"adaptive_backoff": 1.0}, "adaptive_backoff must be a number > 0 and < 1; got 1.0"),
        ({"adaptive_floor": 4, "adaptive_ceiling": 3}, "adaptive_ceiling must be a whole number >= 4; got 3"),
        ({"bands": "high"}, "bands must be a list of different names"),
        ({"bands": ["a", "a"], "default_band": "a"}, "bands must be a list of different names"),
        ({"bands": ["a", "b"]}, "default_band must be one of a, b; got 'normal'"),
        ({"bands": ["a b"], "default_band": "a b"}, "each of bands must be 1 to 64 letters"),
        ({"tenant_weights": {"a": 0}}, "the weight of tenant 'a' must be a number > 0; got 0"),
        ({"tenant_weights": ["a"]}, "tenant_weights must be a table"),
        ({"fair_cost": "tokens"}, "fair_cost must be one of requests, bytes; got 'tokens'"),
        ({"adaptive_signal": "ttft"}, "adaptive_signal must be one of first_byte, whole; got 'ttft'"),
        ({"priority_header": "x priority"}, "priority_header must be 1 to 64 letters"),
    ],
)
def test_what_is_not_legal_is_told(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="must be") as raised:
        RouterConfig(**fields)
    assert message in str(raised.value)


def test_limits_are_off_by_default() -> None:
    assert not RouterConfig().limited
    assert RouterConfig(adaptive_target=0.5).limited
    assert RouterConfig(worker_max_in_flight=1).limited
    assert RouterConfig(bands=["only"], default_band="only").bands == ("only",)


def test_the_file_says_it_in_its_router_table(tmp_path: Path) -> None:
    file = tmp_path / "router.toml"
    file.write_text(
        """[router]
max_concurrent = 256
adaptive_target = 0.5
queue_timeout = "none"
bands = ["urgent", "rest"]
default_band = "rest"
tenant_weights = {batch = 0.5}
warm_prefixes = 4
"""
    )
    config, _, _ = load_config(str(file))
    assert (config.max_concurrent, config.queue_timeout, config.bands) == (256, None, ("urgent", "rest"))
    assert (config.tenant_weights, config.warm_prefixes) == ({"batch": 0.5}, 4)
    file.write_text("[router]\nmax_concurrent = 1\nqueue_size = -1\n")
    with pytest.raises(ValueError, match=r"queue_size must be a whole number >= 0; got -1") as raised:
        load_config(str(file))
    assert "3" in str(raised.value), "the line is named"


@pytest.mark.parametrize(
    ("route", "fields", "demand"),
    [
        (Route(), {}, Demand(1)),
        (Route(), {b"x-priority": b" LOW ", b"x-tenant": b"t", b"x-request-timeout": b"1.5"}, Demand(2, "t", 1.5)),
        (Route(), {b"x-priority": b"urgent"}, Demand(1, unknown_band=True)),
        (Route(), {b"x-priority": b""}, Demand(1, unknown_band=True)),
        (Route(band="high", tenant="r", deadline=9.0), {b"x-priority": b"low", b"x-tenant": b"t"}, Demand(0, "r", 9.0)),
        (Route(tenant="r"), {b"x-priority": b"low"}, Demand(2, "r")),
    ],
)
def test_rules_come_before_headers(route: Route, fields: dict[bytes, bytes], demand: Demand) -> None:
    assert Demands(RouterConfig()).read(route, fields) == demand


def test_a_long_tenant_is_kept_as_its_digest() -> None:
    read = Demands(RouterConfig()).read
    long, other = (read(Route(), {b"x-tenant": b"t" * 5000 + end}).tenant for end in (b"a", b"b"))
    assert len(long) == 32
    assert long != other
