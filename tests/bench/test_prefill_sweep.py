"""``gaugeblock bench prefill``: the sweep, its judgement, and what it writes."""

import json
from dataclasses import replace
from xml.etree import ElementTree

import pytest
import torch
from click.testing import CliRunner

from gaugeblock.conformance.bench.prefill import sweep as sweeping
from gaugeblock.conformance.bench.prefill.copies import measure_copies
from gaugeblock.conformance.bench.prefill.models import kv_bytes_per_token, load
from gaugeblock.conformance.bench.prefill.report import Report, _ticks, plot, render
from gaugeblock.conformance.bench.prefill.sweep import Setting, grid, sweep
from gaugeblock.conformance.cli.bench import bench
from gaugeblock.fixtures.embedded import tiny_model
from gaugeblock.fixtures.errors import KitError

TOKENS = 200


@pytest.fixture(scope="module")
def model():
    return load(tiny_model(), None, "fp32", "cpu")


@pytest.fixture(scope="module")
def points(model):
    ids = torch.arange(TOKENS)[None] % 250
    settings = list(grid(TOKENS, [32], [48], ["host", "disk"]))
    return sweep(model, ids, settings, 1, lambda point: None)


def test_the_grid_leaves_out_windows_that_hold_the_prompt():
    assert list(grid(100, [8], [50, 100], ["host"])) == [
        Setting(None),
        Setting(8),
        Setting(8, 50, "host"),
        Setting(8, 50, "host", overlap=False),
    ]


def test_every_setting_gives_one_shots_distribution_within_its_memory(points, model):
    assert [point.problem(low_precision=False) for point in points] == [None] * 5
    one_shot, chunked, *windowed = points
    token = kv_bytes_per_token(model)
    assert one_shot.peak_kv_bytes == TOKENS * token
    assert chunked.operators > 5 * one_shot.operators
    for point in windowed:
        assert point.kv_limit == int((48 + 32) * token * 1.05)
        assert 48 * token < point.peak_kv_bytes <= point.kv_limit
        assert point.bytes_out == (TOKENS - 48) // 32 * 32 * token or point.bytes_out >= (TOKENS - 80) * token
        assert point.bytes_in > point.bytes_out


def test_what_is_wrong_is_said(points):
    wrong = [
        replace(points[2], peak_kv_bytes=points[2].kv_limit + 1),
        replace(points[1], difference=1.0),
        replace(points[1], difference=float("nan")),
    ]
    report = Report("tiny", "CPU", "fp32", TOKENS, 1, [points[0], *wrong], complete=True)
    text = " ".join(report.problems())
    assert len(report.problems()) == 3
    assert "allowed" in text
    assert "nats" in text
    assert replace(points[1], common=0.9).problem(low_precision=True)


def test_table_and_plot_show_every_setting(points):
    report = Report("tiny", "CPU", "fp32", TOKENS, 1, points, complete=False)
    text, picture = render(report), plot(report)
    assert all(point.setting.label in text and point.setting.label in picture for point in points)
    assert "INCOMPLETE" in text
    ElementTree.fromstring(picture)


def test_copies_are_measured_both_ways(model, points):
    copies = measure_copies(model, 2100, rounds=1)
    assert min(copies.whole_in, copies.whole_out, copies.pages_in, copies.pages_out) > 0
    report = Report("tiny", "a card", "fp32", TOKENS, 1, points, complete=True, copies=copies)
    assert copies.line() in render(report)
    assert report.as_json()["copies_gb_s"]["pages_in"] == copies.pages_in


@pytest.mark.parametrize(("most", "last"), [(4.3, 4), (11753, 10000), (0.07, 0.06), (1000, 1000)])
def test_ticks_are_round(most, last):
    ticks = _ticks(most)
    assert ticks[0] == 0
    assert ticks[-1] == last
    assert 4 <= len(ticks) <= 7


def test_the_command_writes_its_three_files(tmp_path, monkeypatch):
    def one_point(model, ids, settings, rounds, done):
        return sweeping_real(model, ids, settings[:2], rounds, done)

    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    sweeping_real = sweeping.sweep
    monkeypatch.setattr(sweeping, "sweep", one_point)
    arguments = ["prefill", "--tokens", "64", "--chunk", "32", "--rounds", "1", "--out", str(tmp_path)]
    result = CliRunner().invoke(bench, arguments, standalone_mode=False)
    assert result.return_value == 0, result.output
    assert json.loads((tmp_path / "bench-prefill.json").read_text())["footer"]["complete"]
    text = (tmp_path / "bench-prefill.txt").read_text()
    assert "chunk 32" in text
    assert "on CPU, 1 thread; " in text
    assert text.splitlines()[0].endswith("; one round")
    ElementTree.parse(tmp_path / "bench-prefill.svg")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tokens", "99999"], "more than the model's 2048 positions"),
        (["--shape", "gpt-5"], "smollm2-135m"),
        (["--dtype", "fp8"], "bf16"),
        (["--model", "/nowhere", "--shape", "smollm2-135m"], "not both"),
        (["--model", "/nowhere"], "no model folder at /nowhere"),
        (["--out", "/dev/null/report"], "cannot write into '/dev/null/report'"),
    ],
)
def test_bad_arguments(arguments, message):
    result = CliRunner().invoke(bench, ["prefill", *arguments], standalone_mode=False)
    assert isinstance(result.exception, KitError), result.output
    assert message in str(result.exception)
