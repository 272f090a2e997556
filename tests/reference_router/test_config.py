from __future__ import annotations

import re
from typing import Any

import pytest

from gaugeblock.reference.router.config import RouterConfig
from gaugeblock.reference.router.urls import worker_id


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"policy": "cache-aware"},
            "policy must be one of cache_aware, consistent_hash, least_load, power_of_two, random, round_robin; got 'c",
        ),
        ({"retries": -1}, "retries must be a whole number >= 0; got -1"),
        ({"retries": 1.5}, "retries must be a whole number"),
        ({"retries": True}, "retries must be a whole number"),
        ({"idle_timeout": 0}, "idle_timeout must be a number > 0 or null for no limit; got 0"),
        ({"drain_timeout": float("inf")}, "drain_timeout must be a number >= 0"),
        ({"drain_timeout": "5"}, "drain_timeout must be a number >= 0; got '5'"),
        ({"breaker_failures": 0}, "breaker_failures must be a whole number >= 1; got 0"),
        ({"worker_urls": ["nonsense"]}, "a worker URL must look like http://HOST:PORT, got 'nonsense'"),
        ({"worker_urls": "http://a:1"}, "worker_urls must be a list"),
        ({"hash_load_factor": 0.5}, "hash_load_factor must be 0 for no bound, or >= 1; got 0.5"),
        ({"session_affinity": "yes"}, "session_affinity must be true or false; got 'yes'"),
    ],
)
def test_what_is_wrong_is_named_with_what_is_legal(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        RouterConfig(**fields)


def test_zero_and_none_are_kept() -> None:
    config = RouterConfig(retries=0, head_hold=0, drain_timeout=0, max_sessions=0, cache_bytes=0, total_timeout=None)
    assert (config.retries, config.head_hold, config.drain_timeout, config.max_sessions) == (0, 0, 0, 0)
    assert (config.cache_bytes, config.total_timeout) == (0, None)


@pytest.mark.parametrize(
    ("url", "identity"),
    [
        ("http://A.example:80/", "http://a.example:80"),
        ("http://a", "http://a:80"),
        ("https://a", "https://a:443"),
        ("http://[::1]:9", "http://[::1]:9"),
    ],
)
def test_one_worker_has_one_id(url: str, identity: str) -> None:
    assert worker_id(url) == worker_id(identity) == identity


@pytest.mark.parametrize(
    "url",
    [
        "http://a:1?q",
        "http://a b:1",
        "http://a:1\r\nX: y",
        "http://[::1:9",
        "a:1",
        "ftp://a:1",
        "",
        "http://a:0",
        "http://a:99999",
        "http://u:p@a:1",
        "http://a:1/v1",
    ],
)
def test_garbage_is_no_worker(url: str) -> None:
    with pytest.raises(ValueError, match="must look like"):
        worker_id(url)
