"""The whole run with made-up times: files, schema, and what makes it fail."""

import json
import xml.etree.ElementTree as ET
from dataclasses import replace
from importlib import resources

import jsonschema
import pytest

from gaugeblock.conformance.bench.implementations import Peers
from gaugeblock.conformance.bench.run import run
from gaugeblock.fixtures.faults.record import planted
from gaugeblock.fixtures.targets.kernels import load_kernels

from .made_up import Timer, small_workloads

NO_PEERS = Peers({}, {"made_up": "1.0"}, {"flashinfer": "not installed"})


def schema():
    path = resources.files("gaugeblock.conformance").joinpath("schema", "bench-kernels.schema.json")
    return json.loads(path.read_text(encoding="utf-8"))


def bench(out, workloads, card="NVIDIA H100 80GB HBM3", times=lambda name: None):
    said = []
    report = run(
        load_kernels(None), workloads, NO_PEERS, Timer(times, card), device="cpu", out=out, rounds=2, say=said.append
    )
    data = json.loads((out / "bench-kernels.json").read_text(encoding="utf-8"))
    jsonschema.validate(data, schema())
    return report, data, (out / "bench-kernels.txt").read_text(encoding="utf-8")


def test_every_shape_is_measured_and_the_files_are_complete(tmp_path):
    workloads = small_workloads()
    report, data, text = bench(tmp_path, workloads)
    assert [f"{s['op']} {s['label']}" for s in data["shapes"]] == [w.name for w in workloads]
    assert data["footer"]["complete"]
    assert data["errors"] == data["left_out"] == {}
    for shape in report.shapes:
        assert shape.entries[0].name == "ours"
        assert shape.entries[0].outcome == "measured", shape.entries[0].message
        assert shape.gate is not None
        assert f"{shape.op} {shape.label}" in text
    assert "flashinfer: not installed" in text


def test_every_op_uses_less_memory_than_its_composition_moves(tmp_path):
    report, _, _ = bench(tmp_path, small_workloads())
    for memory in report.memory:
        assert memory.eager_bytes >= memory.fused_bytes, memory


def test_the_plot_is_xml_that_names_every_shape(tmp_path):
    workloads = small_workloads()
    bench(tmp_path, workloads)
    texts = {element.text for element in ET.parse(tmp_path / "roofline.svg").iter() if element.tag.endswith("text")}
    assert {workload.name for workload in workloads} <= texts


def test_a_missed_gate_is_a_problem(tmp_path):
    report, data, text = bench(tmp_path, small_workloads("softmax"))
    assert report.problems() == data["problems"]
    assert "softmax 4096×32000: gate R ≥ 0.88 missed" in data["problems"][0]
    assert "gates met: 0, missed: 2" in text


def test_a_wrong_result_is_a_problem_whatever_its_time(tmp_path):
    with planted("kernels-softmax-nothing-computed"):
        report = bench(tmp_path, [wide(w) for w in small_workloads("softmax")])[0]
    assert [problem for problem in report.problems() if "wrong result" in problem] == [
        f"softmax {label}: ours: wrong result, {shape.entries[0].error:.4g} of its error budget"
        for label, shape in zip(("4096×32000", "1024×128256"), report.shapes, strict=True)
    ]
    assert {shape.gate.verdict for shape in report.shapes} == {"not judged"}


def wide(workload):
    """The fault that is planted leaves fewer rows alone."""
    return replace(workload, shape={"rows": 8, "columns": 64})


def test_the_best_of_the_others_is_no_other_call_of_ours(tmp_path):
    def times(name):
        return 5.0 if name.endswith("int8_linear.int8_linear") else 9.0 if name.endswith("int8_linear.eager") else None

    report, _, text = bench(tmp_path, small_workloads("int8_linear")[:1], times=times)
    assert [entry.name for entry in report.shapes[0].entries][:3] == ["ours", "ours, plain call", "eager"]
    line = next(line for line in text.splitlines() if line.startswith("int8_linear 4096×4096→4096  "))
    assert "eager 9.00" in line
    tips = [element.text for element in ET.parse(tmp_path / "roofline.svg").iter() if element.tag.endswith("title")]
    assert any("4096×4096→4096: eager" in tip for tip in tips)
    assert not any("plain call" in tip for tip in tips)


def test_a_rival_that_no_graph_could_hold_is_shown_by_its_launches(tmp_path):
    def times(name):
        return None if name.endswith("sampling.sampling") else (next(rival) if name.endswith("sampling.eager") else 1.0)

    rival = iter([9.0, RuntimeError("capture"), 9.0])
    _, data, text = bench(tmp_path, small_workloads("sampling"), times=times)
    assert [entry["graph"] is None for entry in data["shapes"][0]["entries"]] == [False, True]
    assert "eager 9.00 launch" in text
    assert "graph: RuntimeError: capture" in text


def test_a_card_without_budgets_is_said_and_nothing_is_gated(tmp_path):
    report, data, text = bench(tmp_path, small_workloads("softmax"), card="NVIDIA Nothing")
    assert report.problems() == []
    assert "NVIDIA Nothing has no budgets: nothing is gated" in text
    assert data["budgets"].startswith("none for this card; known: NVIDIA H100 80GB HBM3")


def test_a_shape_that_cannot_be_made_does_not_end_the_run(tmp_path):
    workloads = small_workloads("softmax")
    workloads[0].shape["no_such_argument"] = 1
    _, data, text = bench(tmp_path, workloads)
    workloads[0].shape.pop("no_such_argument")
    assert "TypeError" in data["errors"]["softmax 4096×32000"]
    assert len(data["shapes"]) == 1
    assert "softmax 4096×32000: TypeError" in text


def test_a_run_that_is_cut_leaves_what_it_had_without_its_footer(tmp_path):
    def times(name):
        if "softmax" in name:
            raise KeyboardInterrupt
        return

    with pytest.raises(KeyboardInterrupt):
        bench(tmp_path, [*small_workloads("silu_and_mul"), *small_workloads("softmax")], times=times)
    data = json.loads((tmp_path / "bench-kernels.json").read_text(encoding="utf-8"))
    jsonschema.validate(data, schema())
    assert not data["footer"]["complete"]
    assert len(data["shapes"]) == 2
    assert "INCOMPLETE" in (tmp_path / "bench-kernels.txt").read_text(encoding="utf-8")
