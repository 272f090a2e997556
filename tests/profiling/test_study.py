"""The whole exercise on the tiny model, with baselines in place of compiled ops: what is measured, what is said."""

import dataclasses
import io
import json

import pytest
import torch
from rich.console import Console

from gaugeblock.conformance.cli.profile import _finish
from gaugeblock.conformance.profiling import measure, study
from gaugeblock.conformance.profiling.report import show, write_report
from gaugeblock.conformance.profiling.workload import load_model
from gaugeblock.fixtures.embedded import tiny_model
from gaugeblock.kernels.contract import load_contracts


@pytest.fixture
def quick(monkeypatch):
    """No compiler, few rounds, small ceilings: the steps are what is tested."""
    monkeypatch.setattr(measure, "ROUNDS", (2, 2))
    monkeypatch.setattr(measure, "compiled", measure.eager)
    ceilings = study.Ceilings("a CPU", 10.0, 0.05, "bfloat16")
    monkeypatch.setattr(study, "measure_ceilings", lambda *_: ceilings)
    monkeypatch.setattr(study, "SMALL", (6, 1))


def studied(out):
    return study.study_model(load_model(tiny_model(), "bf16", "cpu"), "tiny", 12, 2, out)


def text_of(found):
    console = Console(file=io.StringIO(), width=150, highlight=False)
    show(found, console)
    return console.file.getvalue()


@pytest.mark.usefixtures("quick")
def test_every_op_is_measured_alone_and_all_together(tmp_path):
    found = studied(tmp_path)
    timed = [variant for variant in found.variants if variant.times]
    assert [variant.ops for variant in timed] == [
        ("add_rmsnorm",), ("silu_and_mul",), ("rope",), ("add_rmsnorm", "silu_and_mul", "rope"),
    ]  # fmt: skip # PyTorch's attention is one kernel already: compiling ours of its parts would say nothing
    assert [variant.places for variant in timed] == [8, 4, 4, 16]
    untimed = [variant for variant in found.variants if not variant.times]
    assert {variant.implementation for variant in untimed} == {"ours (Triton)"}
    assert [variant.ops[0] for variant in untimed] == [
        "add_rmsnorm", "silu_and_mul", "rope", "decode_attention", "extend_attention",
    ]  # fmt: skip
    assert all("needs a GPU" in variant.why_untimed for variant in untimed)
    for variant in timed:
        assert variant.agreement.right
        assert variant.before.peak_bytes > 0
        for share in variant.times.values():
            assert share.speedup == pytest.approx(share.before_s / share.after_s)
            assert 0 < share.low <= share.high
    norm = timed[0]
    assert norm.after.launches["decode"] < norm.before.launches["decode"]
    report = json.loads(write_report(found, tmp_path).read_text())
    assert report["footer"] == {"complete": True}
    assert [v["ops"] for v in report["fused"]].count(["rope"]) == 2
    assert (tmp_path / "trace.json").is_file()
    assert (tmp_path / "trace-fused.json").is_file()
    said = text_of(found)
    assert "need a GPU" in said
    assert "unfused baseline of the op" in said


@pytest.mark.usefixtures("quick")
def test_without_a_compiler_nothing_is_timed_and_it_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "compiler_missing", lambda _: "no C++ compiler")
    found = studied(tmp_path)
    assert len(found.variants) == 5
    assert not any(variant.times for variant in found.variants)
    assert not found.wrong
    said = text_of(found)
    assert "no C++ compiler" in said
    assert "measured again" not in said


@pytest.mark.usefixtures("quick")
def test_a_wrong_op_is_named_untimed_and_exit_code_1(tmp_path, monkeypatch, capsys):
    def backwards(group, contracts):
        calls = {f: contracts[f.op].eager for f in group}
        for fusion in group:
            if fusion.op == "silu_and_mul":
                calls[fusion] = lambda x: torch.nn.functional.silu(x.chunk(2, -1)[1]) * x.chunk(2, -1)[0]
        return measure.Implementation("planted", calls)

    monkeypatch.setattr(measure, "compiled", backwards)
    found = studied(tmp_path)
    assert [variant.ops for variant in found.wrong] == [("silu_and_mul",)]
    assert found.variants[-1].ops == ("add_rmsnorm", "rope")  # what is right goes on
    assert all(not variant.times and variant.why_untimed == "the outputs differ" for variant in found.wrong)
    assert _finish(found, tmp_path) == 1
    assert "wrong silu_and_mul, planted: overlap loss" in capsys.readouterr().out


@pytest.mark.usefixtures("quick")
def test_an_op_that_fails_is_named_and_the_others_go_on(tmp_path, monkeypatch, capsys):
    def broken(*_inputs, **_params):
        raise RuntimeError("no kernel image\nfor this card")

    def one_fails(group, contracts):
        calls = {f: broken if f.op == "rope" else contracts[f.op].eager for f in group}
        return measure.Implementation("planted", calls)

    monkeypatch.setattr(measure, "compiled", one_fails)
    found = studied(tmp_path)
    assert found.failures == ["rope, planted: RuntimeError: no kernel image"]
    assert found.variants[-1].ops == ("add_rmsnorm", "silu_and_mul")
    assert _finish(found, tmp_path) == 1
    assert "failed rope, planted" in capsys.readouterr().out


@pytest.mark.usefixtures("quick")
def test_an_op_that_does_not_fit_the_model_is_left_out_and_not_called_wrong(tmp_path, monkeypatch):
    """A rotary embedding that turns neighbours has the same parts by name as one that turns halves."""
    contracts = load_contracts()
    plain = contracts["rope"].eager
    interleaved = dataclasses.replace(contracts["rope"], eager=lambda *inputs: plain(*inputs, True))
    monkeypatch.setattr(study, "load_contracts", lambda: {**contracts, "rope": interleaved})
    found = studied(tmp_path)
    assert not found.wrong
    assert all("rope" not in variant.ops for variant in found.variants)
    assert any(note.startswith("rope does not fit this model") for note in found.notes)
