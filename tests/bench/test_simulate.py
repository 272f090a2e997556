"""The simulated fleet keeps time by hand, caches as far as it has room, and reports what it did."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from gaugeblock.conformance.bench.routing.fleet import Engine, PrefixCache
from gaugeblock.conformance.bench.routing.paper import on_paper
from gaugeblock.conformance.bench.routing.report import Paper, Report, Row, plot, render
from gaugeblock.conformance.bench.routing.simulate import Outcome, Setup, simulate, view_of
from gaugeblock.conformance.cli.simulate import simulate as command
from gaugeblock.fixtures.errors import KitError
from gaugeblock.fixtures.targets.router_policies import OwnPolicies
from gaugeblock.fixtures.traces import TraceRequest, generate_trace, write_trace

ENGINE = Engine(prefill_rate=1000.0, output_rate=10.0, slots=2, cache_tokens=10_000)


def run(trace: list[TraceRequest], policy: str = "round_robin", **fields: Any) -> Outcome:
    setup = Setup(**{"workers": 1, "engine": ENGINE, **fields})
    return simulate(trace, OwnPolicies().make(policy), policy, setup)


def test_times_of_one_worker_by_hand() -> None:
    trace = [
        TraceRequest(0, 1000, 11, (1, 2)),
        TraceRequest(500, 500, 11, (3,)),
        TraceRequest(600, 100, 1, (4,)),
    ]
    one, two, three = run(trace).visits
    assert (one.first_token, one.ended) == pytest.approx((1.0, 2.0)), "1000 tokens, then 10 more at 10 a second"
    assert (two.first_token, two.ended) == pytest.approx((1.5, 2.5)), "its prefill waits for the first one's"
    assert (three.first_token, three.ended) == pytest.approx((2.1, 2.1)), "both slots are taken until 2.0"


def test_a_prefix_is_cached_once_it_was_computed_and_the_last_token_never_is() -> None:
    trace = [
        TraceRequest(0, 1024, 1, (1, 2)),
        TraceRequest(2000, 1024, 1, (1, 2)),
        TraceRequest(4000, 1500, 1, (1, 2, 3)),
        TraceRequest(6000, 1500, 1, (1, 9, 3)),
    ]
    assert [visit.cached for visit in run(trace).visits] == [0, 1023, 1024, 512]


def test_speed_brings_requests_nearer() -> None:
    trace = [TraceRequest(0, 1000, 1, (1, 2)), TraceRequest(4000, 100, 1, (3,))]
    assert run(trace, speed=8.0).visits[1].first_token == pytest.approx(1.1)


def test_the_cache_drops_what_was_not_used_and_ends_before_beginnings() -> None:
    cache = PrefixCache(3)
    cache.store((1, 2, 3))
    assert cache.cached((1, 2, 9)) == 2
    cache.store((7,))
    assert cache.cached((1, 2, 3)) == 2, "3 was used least recently"
    cache.store((8,))
    assert cache.cached((1, 2, 3)) == 2
    assert cache.cached((7,)) == 0


def test_with_one_worker_and_room_for_all_the_hit_rate_is_the_trace_s() -> None:
    trace = generate_trace(5, 300)
    seen: set[int] = set()
    tokens = 0
    for request in trace:
        known = next((at for at, block in enumerate(request.hash_ids) if block not in seen), len(request.hash_ids))
        tokens += min(512 * known, request.input_length - 1)
        seen.update(request.hash_ids)
    endless = Engine(prefill_rate=1e9, slots=1000, cache_tokens=10**9)
    assert sum(visit.cached for visit in run(trace, engine=endless).visits) == tokens


@pytest.mark.parametrize("name", OwnPolicies().names())
def test_every_request_is_served_once_and_a_run_can_be_repeated(name: str) -> None:
    trace = generate_trace(3, 200)
    one, two = (run(trace, name, workers=4, engine=Engine(), seed=9) for _ in range(2))
    assert [(v.first_token, v.ended, v.cached) for v in one.visits] == [
        (v.first_token, v.ended, v.cached) for v in two.visits
    ]
    assert all(v.arrived < v.first_token <= v.ended for v in one.visits)
    assert sum(worker.requests for worker in one.workers) == 200
    assert all(worker.in_flight == worker.running == 0 for worker in one.workers)


def test_predictions_of_an_endless_index_are_wrong_where_workers_forget() -> None:
    trace = generate_trace(3, 400)
    small = Row.of(run(trace, "cache_aware", workers=4, engine=Engine(cache_tokens=8000)))
    large = Row.of(run(trace, "cache_aware", workers=4, engine=Engine(cache_tokens=10**8)))
    assert small.wrong > 0.1 > large.wrong
    assert small.hit_rate < large.hit_rate


def test_knowing_prefixes_beats_not_knowing() -> None:
    trace = generate_trace(3, 600)
    rates = {name: Row.of(run(trace, name, workers=8, engine=Engine())).hit_rate for name in ("cache_aware", "random")}
    assert rates["cache_aware"] > rates["random"] + 0.1, rates


def test_a_view_is_what_a_router_reads() -> None:
    view = view_of(TraceRequest(0, 700, 1, (1, 2)))
    assert (len(view.prompt), view.unit, view.session) == (2800, 4, "2")
    assert view.prompt[:4] == b"\1\0\0\0"
    assert view.prompt[2048:2052] == b"\2\0\0\0"
    assert len(view_of(TraceRequest(0, 100_000, 1, tuple(range(196)))).prompt) == 64 << 10


def test_a_report_holds_every_policy_and_its_plot_is_xml() -> None:
    trace = generate_trace(3, 100)
    rows = [Row.of(run(trace, name, workers=4)) for name in ("random", "cache_aware")]
    report = Report("t <1>", 100, Setup(4, ENGINE), rows, Paper(1000, 36e5, {"random": 50.0}))
    assert "random" in render(report)
    assert "5.0%" in render(report), "50 us a thousand times a second"
    drawing = ElementTree.fromstring(plot(report))
    assert len(drawing.findall("{*}rect")) == 1 + 3 * 2
    data = json.loads(json.dumps(report.as_json()))
    assert [row["policy"] for row in data["policies"]] == ["random", "cache_aware"]
    assert data["paper"]["cores"]["random"] == pytest.approx(0.05)


def test_cost_on_paper_grows_with_the_fleet() -> None:
    trace = generate_trace(3, 300)
    small, large = (on_paper(trace, ("least_load",), workers, 10e6).costs["least_load"] for workers in (4, 400))
    assert 0 < small < large


def test_the_command_writes_text_json_and_plot(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    write_trace(path, generate_trace(3, 60))
    words = ["--trace", str(path), "--policy", "random", "--workers", "4", "--paper", "100:1e6", "--out", str(tmp_path)]
    result = CliRunner().invoke(command, words, catch_exceptions=False, standalone_mode=False)
    assert "trace.jsonl: 60 requests" in result.output
    assert json.loads((tmp_path / "simulate.json").read_text())["footer"] == {"complete": True}
    assert {"simulate.txt", "simulate.svg"} <= {file.name for file in tmp_path.iterdir()}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--policy", "cache-aware"], "unknown policy 'cache-aware'.*cache_aware"),
        (["--set", "load=1"], "unknown setting 'load'.*load_cost"),
        (
            ["--set", "cache_bytes=1.5"],
            "--set cache_bytes takes a whole number, such as cache_bytes=33554432; got '1.5'",
        ),
        (["--speed", "0"], "--speed must be a number > 0, got 0"),
        (["--paper", "many"], "--paper takes workers and requests an hour, such as 1000:10e6; got 'many'"),
        (["--trace", "/nowhere"], "cannot read the trace /nowhere"),
    ],
)
def test_misuse_is_said_in_one_line(words: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(KitError, match=message):
        CliRunner().invoke(command, [*words, "--out", str(tmp_path)], catch_exceptions=False, standalone_mode=False)
