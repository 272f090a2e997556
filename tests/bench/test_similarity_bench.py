"""``gaugeblock bench similarity``: the table on the tiny model, and what is said when a variant is not told."""

import json
from dataclasses import replace

import pytest
from click.testing import CliRunner

from gaugeblock.conformance.bench.similarity import separation
from gaugeblock.conformance.bench.similarity.report import Report, render, write
from gaugeblock.conformance.cli.bench import bench as group
from gaugeblock.fixtures.embedded import tiny_model
from gaugeblock.fixtures.errors import KitError
from gaugeblock.fixtures.similarity import measure_null
from gaugeblock.fixtures.similarity.gates import GATES, ORDER
from gaugeblock.fixtures.similarity.variants import RIGHT
from gaugeblock.fixtures.similarity.wrong import WRONG

PROMPTS = 24


@pytest.fixture(scope="module")
def report():
    bench = measure_null.load_bench(tiny_model(), count=PROMPTS)
    compared, cosines = separation.measure(bench)
    null = measure_null.measure_null(bench, list(RIGHT), roundings=4)
    rows = separation.separate(compared, cosines, null, bench.prompts)
    alarms = separation.false_alarms(null, most=2)
    gate = null.gate(GATES["int8"])
    return Report(
        measure_null.describe_model(bench),
        measure_null.describe_prompts(bench),
        measure_null.provenance("cpu"),
        gate,
        rows,
        alarms,
        1.0,
    )


def test_every_variant_is_told_for_what_it_is(report):
    assert [row.name for row in report.rows] == [*RIGHT, *WRONG]
    assert report.problems() == []
    assert all(row.told for row in report.rows)


def test_every_fault_fails_the_fp32_gate_and_cosine_passes_some(report):
    by_name = {row.name: row for row in report.rows}
    assert all(by_name[name].exact.outcome == "failed" for name in WRONG)
    assert by_name["fp32-again"].exact.outcome == by_name["chunked"].exact.outcome == "passed"
    assert sum(by_name[name].cosine > separation.COSINE for name in WRONG) >= 4


def test_each_fault_is_another_computation(report):
    seen = {round(row.similarity.overlap, 9) for row in report.rows if not row.right}
    assert len(seen) == len(WRONG), "two faults give the same rows: one of them is not what its name says"


def test_false_alarms_carry_their_interval(report):
    alarms = report.alarms
    assert alarms.comparisons == 2 * len(alarms.by_variant) == 2 * len([name for name in RIGHT if name not in ORDER])
    assert alarms.low <= alarms.alarms / alarms.comparisons <= alarms.high < 1


def test_the_table_and_the_file_hold_every_row(report, tmp_path):
    write(tmp_path, report)
    text = (tmp_path / "bench-similarity.txt").read_text()
    data = json.loads((tmp_path / "bench-similarity.json").read_text())
    assert all(row.name in text for row in report.rows)
    assert len(data["rows"]) == len(report.rows)
    assert data["footer"]["complete"]
    assert "every right variant passes, every fault fails" in text


def test_what_is_not_told_is_said(report):
    fault, right = report.rows[-1], report.rows[0]
    wrong = replace(
        report, rows=[replace(right, judged=fault.judged), replace(fault, judged=right.judged, needed=None)]
    )
    text = " ".join(wrong.problems())
    assert f"{right.name}: right, and the gate says failed" in text
    assert f"{fault.name}: a fault, and the gate says passed" in text
    assert "not told within 2000 positions" in text
    assert "every right variant passes" not in render(wrong)


def test_misuse_is_named(tmp_path):
    done = CliRunner().invoke(group, ["similarity", "--model", "/nowhere"])
    assert isinstance(done.exception, KitError)
    assert "no model folder" in str(done.exception)
