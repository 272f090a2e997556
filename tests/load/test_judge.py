"""What becomes of a miss: the server's, the client's, or neither; and runs that cannot be judged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from gaugeblock.fixtures.envs import Environment, load_recipe
from gaugeblock.fixtures.errors import TargetFault
from gaugeblock.fixtures.load import judge
from gaugeblock.fixtures.load.bench import Endpoint, scrub
from gaugeblock.fixtures.load.calibration import Calibration, Pace, settle
from gaugeblock.fixtures.load.judge import LoadRun, run_load
from gaugeblock.fixtures.load.run_file import Measurement, read_run
from gaugeblock.fixtures.load.scenario import Scenario
from gaugeblock.fixtures.load.server_view import Histogram, difference
from gaugeblock.fixtures.load.slo import Judgement, parse_slo
from gaugeblock.fixtures.targets.engine import EngineTarget

from .made_up import run_file

TRUTH = {"requests": 100.0, "ttft": 0.05, "tpot": 0.005, "e2e": 0.145}


def measured(tmp_path: Path, **values: float) -> Measurement:
    return read_run(run_file(tmp_path, completed=100, codes={}, **values))


def calibration(tmp_path: Path, **values: float) -> Calibration:
    return Calibration(Pace(0.05, 0.005), TRUTH, measured(tmp_path, **values), concurrency=16)


def miss(text: str, value: float) -> Judgement:
    return Judgement(parse_slo(text), value, False)


def test_a_miss_that_the_client_explains_is_disputed(tmp_path: Path) -> None:
    told = calibration(tmp_path, ttft=0.15)
    assert settle(miss("ttft.p95<=160ms", 0.25), told).disputed  # 250 - (150 - 50) = 150


def test_a_miss_that_the_client_does_not_explain_stands(tmp_path: Path) -> None:
    told = calibration(tmp_path, ttft=0.15)
    settled = settle(miss("ttft.p95<=160ms", 0.9), told)
    assert not settled.disputed
    assert "50.0 ms" in settled.why
    assert "150.0 ms" in settled.why


def test_a_client_that_cannot_show_the_limit_disputes_every_miss(tmp_path: Path) -> None:
    told = calibration(tmp_path, ttft=0.15)
    assert settle(miss("ttft.p95<=100ms", 30.0), told).disputed  # it reports 150 of a server that took 50


def test_a_rate_is_disputed_when_the_client_halves_it(tmp_path: Path) -> None:
    ideal = 16 / TRUTH["e2e"]
    told = calibration(tmp_path, rps=ideal / 2)
    assert settle(miss("rps>=100", 60.0), told).disputed
    assert not settle(miss("rps>=200", 60.0), told).disputed
    assert settle(miss("output_tokens_per_s>=1000", 600.0), told).disputed
    assert not settle(miss("output_tokens_per_s>=2000", 600.0), told).disputed


def test_a_histogram_bounds_its_quantiles_from_below() -> None:
    seen = Histogram(100, 50.0, {0.1: 50.0, 0.5: 90.0, 1.0: 100.0, float("inf"): 100.0})
    assert seen.at_least(0.5, 0) == 0.0
    assert seen.at_least(0.95, 0) == 0.5
    assert seen.at_least(0.95, 10) == 0.1  # 85.5 of the 90 that remain
    assert seen.at_least(0.95, 100) == 0.0
    assert seen.minus(seen).count == 0


def test_the_server_view_of_somebody_elses_requests_is_not_ours() -> None:
    before = {"ttft": Histogram(10, 1.0, {1.0: 10.0})}
    ours = {"ttft": Histogram(110, 11.0, {1.0: 110.0})}
    shared = {"ttft": Histogram(310, 31.0, {1.0: 310.0})}
    assert difference(before, ours, 100)["ttft"].mean == pytest.approx(0.1)
    assert difference(before, shared, 100) == {}
    assert difference(before, before, 100) == {}


def test_a_secret_is_scrubbed_from_text(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metadata.json").write_text('{"error": "you sent sk-123"}')
    (tmp_path / "clean.log").write_text("nothing")
    assert scrub(tmp_path, "sk-123") == 1
    assert "sk-123" not in (tmp_path / "run" / "metadata.json").read_text()
    assert scrub(tmp_path, None) == 0


Go = Callable[..., LoadRun]


@pytest.fixture
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Go:
    """Judge a made-up run, with a made-up server view and calibration; nothing is started."""
    env = Environment(load_recipe("genai-bench"), tmp_path)
    endpoint = Endpoint("http://127.0.0.1:9", "m", tmp_path)
    target = cast(EngineTarget, object())

    def run(
        result: Measurement | Exception, limits: list[str], views: Any = None, told: Calibration | None = None
    ) -> LoadRun:
        def scenario(*_: Any, **__: Any) -> Measurement:
            if isinstance(result, Exception):
                raise result
            return result

        def calibrated(*_: Any) -> Calibration:
            assert told is not None, "nothing needed a calibration"
            return told

        shown = iter(views or [{}, {}])
        monkeypatch.setattr(judge, "prepare_cache", lambda *_: None)
        monkeypatch.setattr(judge, "run_scenario", scenario)
        monkeypatch.setattr(judge, "snapshot", lambda _: next(shown))
        monkeypatch.setattr(judge, "quiet_pace", lambda _: Pace(0.05, 0.005))
        monkeypatch.setattr(judge, "calibrate", calibrated)
        slos = tuple(parse_slo(text) for text in limits)
        return run_load(target, env, endpoint, Scenario("D(100,20)", 4, 100), slos, tmp_path)

    return run


def test_met_needs_no_calibration(go: Go, tmp_path: Path) -> None:
    run = go(measured(tmp_path), ["ttft.p95<=200ms", "rps>=10", "error_rate<=0"])
    assert run.result == "met"
    assert [j.met for j in run.judgements] == [True, True, True]


def test_errors_are_never_the_clients(go: Go, tmp_path: Path) -> None:
    run = go(read_run(run_file(tmp_path, completed=90, codes={"500": 10})), ["error_rate<=0"])
    assert run.result == "missed"
    assert "error_rate<=0 was 0.1" in run.message


def test_the_servers_histogram_confirms_a_miss(go: Go, tmp_path: Path) -> None:
    after = {"ttft": Histogram(100, 90.0, {0.5: 3.0, 1.0: 100.0})}
    run = go(measured(tmp_path, ttft=0.9), ["ttft.p95<=200ms"], [{}, after])
    assert run.result == "missed"
    assert "histogram" in run.judgements[0].why


def test_a_disputed_miss_is_inconclusive_and_a_standing_one_wins(go: Go, tmp_path: Path) -> None:
    told = calibration(tmp_path / "told", ttft=0.15, e2e_latency=0.2)
    run = go(measured(tmp_path, ttft=0.25), ["ttft.p95<=100ms"], None, told)
    assert (run.result, run.judgements[0].disputed) == ("inconclusive", True)
    run = go(measured(tmp_path, ttft=0.25, e2e_latency=9.0), ["ttft.p95<=100ms", "e2e.p95<=300ms"], None, told)
    assert run.result == "missed"
    assert run.message == "missed: e2e.p95<=300ms was 9000.0 ms"


def test_all_requests_failing_is_one_clear_line(go: Go, tmp_path: Path) -> None:
    lost = ("ttft", "tpot", "e2e_latency")
    run = go(read_run(run_file(tmp_path, completed=0, codes={"500": 9}, missing=lost)), ["ttft.p95<=1s"])
    assert run.result == "failed"
    assert run.message == "every one of 9 requests failed (9 × 500); the first said: 'out of memory'"


def test_a_buffered_stream_is_named(go: Go, tmp_path: Path) -> None:
    run = go(read_run(run_file(tmp_path, completed=9, codes={}, missing=("tpot",))), [])
    assert run.result == "failed"
    assert "one piece" in run.message


def test_a_fault_of_the_target_is_a_failed_run(go: Go) -> None:
    run = go(TargetFault("no request was answered within 1 min"), ["rps>=1"])
    assert (run.result, run.measurement) == ("failed", None)


def test_no_limit_measures(go: Go, tmp_path: Path) -> None:
    assert go(measured(tmp_path), []).result == "measured"
