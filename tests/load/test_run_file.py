"""Run files: numbers, the error rate that the file gets wrong, and files that are none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gaugeblock.fixtures.errors import EnvironmentFault
from gaugeblock.fixtures.load.run_file import find_run, read_run

from .made_up import run_file


def test_error_rate_is_computed_not_believed(tmp_path: Path) -> None:
    path = run_file(tmp_path, completed=276, codes={"500": 90, "503": 4})
    run = read_run(path)
    assert (run.requests, run.errors, run.completed) == (370, 94, 276)
    assert run.error_rate == pytest.approx(94 / 370)
    assert run.metrics()["error_rate"] == run.error_rate
    assert run.first_error == "out of memory"
    assert run.error_codes == {"500": 90, "503": 4}


def test_metrics_have_the_names_of_limits(tmp_path: Path) -> None:
    run = read_run(run_file(tmp_path, completed=10, codes={}, ttft=0.05, e2e_latency=0.4, rps=7.5))
    metrics = run.metrics()
    assert metrics["ttft.p95"] == 0.05
    assert metrics["e2e.p99"] == 0.4
    assert metrics["rps"] == 7.5
    assert metrics["output_tokens_per_s"] == 240.0
    assert json.loads(json.dumps(run.describe()))["e2e_s"]["p99"] == 0.4


def test_a_debug_file_counts_its_errors(tmp_path: Path) -> None:
    path = run_file(tmp_path, completed=0, codes={"500": 7}, missing=("ttft", "tpot", "e2e_latency"))
    data = json.loads(path.read_text())
    data["aggregated_metrics"].update(num_error_requests=0, num_requests=0)  # as they are before the crash
    path.write_text(json.dumps(data))
    run = read_run(path)
    assert (run.requests, run.errors, run.completed, run.error_rate) == (7, 7, 0, 1.0)
    assert run.latencies["ttft"] == {}


def test_the_run_file_is_preferred_to_the_debug_file(tmp_path: Path) -> None:
    assert find_run(tmp_path) is None
    debug = run_file(tmp_path, completed=1, codes={}, missing=("tpot",))
    assert find_run(tmp_path) == debug
    whole = run_file(tmp_path, completed=1, codes={})
    assert find_run(tmp_path) == whole


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"aggregated_metrics": {}, "individual_request_metrics": []}', "{"])
def test_another_file_is_refused_by_name(text: str, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text(text)
    with pytest.raises(EnvironmentFault, match=r"run\.json is not a run file"):
        read_run(path)
