"""What rules and experiments decide, without a network."""

from __future__ import annotations

import json
from collections import Counter
from random import Random
from typing import Any

import pytest

from gaugeblock.reference.router.experiments import Experiment
from gaugeblock.reference.router.front import Request
from gaugeblock.reference.router.http1 import parse_request_head
from gaugeblock.reference.router.rules import DEFAULT_ROUTE, Route
from gaugeblock.reference.router.ruleset import Rule, RuleSet
from gaugeblock.reference.router.view import read


def decide(
    rules: list[dict[str, Any]],
    experiments: list[dict[str, Any]] = [],  # noqa: B006 # never changed
    *,
    path: str = "/v1/chat/completions",
    headers: str = "",
    tenant: str | None = None,
    **body: Any,
) -> Route:
    """Return what the rules decide about one request."""
    chosen = RuleSet([Rule.of(rule) for rule in rules], [Experiment.of(e) for e in experiments], Random(1))
    head = parse_request_head(f"POST {path} HTTP/1.1\r\n{headers}".rstrip("\r\n").encode())
    data = json.dumps(body).encode()
    reading = read(path, head.fields, data, (b"x-session-id",), 0, measure=chosen.measures)
    return chosen.route(Request(b"POST", path.encode(), path, "", head, data), reading, tenant)


def test_without_a_match_nothing_is_decided() -> None:
    assert decide([{"name": "r", "match": {"model": "other"}, "pool": "p"}], model="m") == DEFAULT_ROUTE


def test_the_first_match_decides_all() -> None:
    rules = [
        {"name": "first", "match": {"model": ["a", "llama-*"]}, "pool": "p", "band": "low", "deadline": 2.5},
        {"name": "second", "pool": "q", "policy": "random", "tenant": "t", "tier": "cpu"},
    ]
    assert decide(rules, model="llama-8b") == Route("p", None, "low", None, 2.5, rule="first")
    assert decide(rules, model="llama") == Route("q", "random", None, "t", tiers=("cpu",), rule="second")


@pytest.mark.parametrize(
    ("match", "request_", "holds"),
    [
        ({"path": "/v1/embeddings"}, {"path": "/v1/embeddings"}, True),
        ({"path": "/v1/emb"}, {"path": "/v1/embeddings"}, False),
        ({"path": "/v1/*"}, {"path": "/v1/embeddings"}, True),
        ({"headers": {"X-SLA": "gold"}}, {"headers": "x-sla: gold"}, True),
        ({"headers": {"x-sla": ["gold", "silver"]}}, {"headers": "X-Sla: silver"}, True),
        ({"headers": {"x-sla": "gold"}}, {"headers": "X-Sla: golden"}, False),
        ({"headers": {"x-sla": "gold"}}, {}, False),
        ({"headers": {"x-sla": "gold", "x-b": "1"}}, {"headers": "x-sla: gold"}, False),
        ({"tenant": "acme"}, {"tenant": "acme"}, True),
        ({"tenant": "acme"}, {}, False),
        ({"model": "*"}, {}, False),
        ({"min_bytes": 10}, {"prompt": "x" * 10}, True),
        ({"min_bytes": 10}, {"prompt": "x" * 9}, False),
        ({"min_bytes": 10}, {"prompt": "ä" * 5}, True),
        ({"max_bytes": 9}, {"prompt": "x" * 10}, False),
        ({"max_bytes": 0}, {}, True),
        ({"min_bytes": 10, "max_bytes": 20}, {"messages": [{"content": "x" * 6}, {"content": "y" * 6}]}, True),
        ({"min_bytes": 10}, {"messages": [{"content": [{"type": "text", "text": "x" * 10}]}]}, True),
        ({"min_bytes": 10}, {"text": ["x" * 6, "y" * 6]}, True),
        ({"min_tokens": 10}, {"input_ids": list(range(10))}, True),
        ({"min_tokens": 10}, {"input_ids": [[1] * 6, [2] * 6]}, True),
        ({"min_tokens": 10}, {"prompt": list(range(9))}, False),
        ({"min_tokens": 1}, {"prompt": "many letters and no ids"}, False),
        ({"min_bytes": 1}, {"prompt": list(range(100))}, False),
        ({"min_bytes": 1, "min_tokens": 50}, {"prompt": list(range(100))}, True),
    ],
)
def test_conditions(match: dict[str, Any], request_: dict[str, Any], holds: bool) -> None:
    assert (decide([{"name": "r", "match": match}], **request_).rule == "r") is holds


def test_the_tenant_of_a_request_stays_unless_a_rule_names_another() -> None:
    assert decide([{"name": "r"}], tenant="acme").tenant == "acme"
    assert decide([{"name": "r", "tenant": "all"}], tenant="acme").tenant == "all"


CANARY = {"name": "canary", "variants": [{"name": "next", "percent": 10, "pool": "next"}]}


def shares(experiment: dict[str, Any], count: int = 4000) -> Counter[str | None]:
    return Counter(decide([], [experiment], headers=f"x-session-id: s{n}").variant for n in range(count))


def test_a_share_is_what_was_asked_for() -> None:
    drawn = shares(CANARY)  # binomial(4000, 0.1): sigma is 19
    assert abs(drawn["canary/next"] - 400) < 5 * 19
    split = shares({"name": "ab", "variants": [{"name": "a", "percent": 50}, {"name": "b", "percent": 50}]})
    assert set(split) == {"ab/a", "ab/b"}
    assert abs(split["ab/a"] - 2000) < 5 * 32
    assert set(shares({"name": "x", "variants": [{"name": "off", "percent": 0}]}, 200)) == {None}
    assert set(shares({"name": "x", "variants": [{"name": "on", "percent": 100}]}, 200)) == {"x/on"}


def test_experiments_draw_independently() -> None:
    """Whoever is in one canary is no likelier to be in the next."""
    both = 0
    for n in range(2000):
        headers = f"x-session-id: s{n}"
        in_one = decide([], [CANARY], headers=headers).variant
        both += bool(in_one) and bool(decide([], [{**CANARY, "name": "other"}], headers=headers).variant)
    assert 3 <= both <= 45  # binomial(2000, 0.01): mean 20, sigma 4.4


def test_one_unit_has_one_variant() -> None:
    half = {"name": "ab", "variants": [{"name": "a", "percent": 50}]}
    for by, request in (
        ("session", {"headers": "x-session-id: s"}),
        ("tenant", {"tenant": "t"}),
        ("request", {"headers": "x-request-id: r"}),
        ("request", {"rid": "r"}),
    ):
        drawn = {decide([], [{**half, "by": by}], model=f"m{n}", **request).variant for n in range(20)}
        assert len(drawn) == 1, (by, drawn)


def test_requests_without_a_unit_are_drawn_one_by_one() -> None:
    chosen = RuleSet([], [Experiment.of({"name": "ab", "variants": [{"name": "a", "percent": 50}]})], Random(1))
    head = parse_request_head(b"POST /generate HTTP/1.1")
    request = Request(b"POST", b"/generate", "/generate", "", head, b"{}")
    reading = read("/generate", {}, b"{}", (), 0)
    assert {chosen.route(request, reading, None).variant for _ in range(50)} == {None, "ab/a"}


def test_a_variant_outranks_the_rule_and_knows_the_way_back() -> None:
    rules = [{"name": "r", "pool": "main", "policy": "random", "band": "high"}]
    everybody = {"name": "c", "variants": [{"name": "next", "percent": 100, "pool": "next"}]}
    route = decide(rules, [everybody])
    assert route[:3] == ("next", "random", "high")
    assert (route.rule, route.variant) == ("r", "c/next")
    assert route.otherwise is not None
    assert (route.otherwise.pool, route.otherwise.variant, route.otherwise.rule) == ("main", None, "r")


def test_a_shadow_comes_beside_a_variant() -> None:
    mirror = {"name": "mirror", "shadow": "next", "percent": 50}
    routes = [decide([], [CANARY, mirror], headers=f"x-session-id: s{n}") for n in range(400)]
    shadowed = sum(route.shadow == "next" for route in routes)
    assert 150 < shadowed < 250  # binomial(400, 0.5): sigma 10
    treated = [route for route in routes if route.variant]
    assert treated
    assert all(route.otherwise and route.otherwise.shadow == route.shadow for route in treated)


def test_only_generations_take_part_in_experiments() -> None:
    everybody = {"name": "c", "variants": [{"name": "next", "percent": 100}]}
    assert decide([], [everybody], path="/v1/embeddings").variant is None
    assert decide([], [everybody], path="/generate").variant == "c/next"
