"""Calibrations: what they say, that they survive a file, and what is refused."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner

from gaugeblock.conformance.cli.calibrate import calibrate
from gaugeblock.conformance.similarity import GATES
from gaugeblock.fixtures.embedded import tiny_model
from gaugeblock.fixtures.errors import KitError
from gaugeblock.fixtures.similarity import calibration as files
from gaugeblock.fixtures.similarity.calibration import model_digest
from gaugeblock.fixtures.similarity.measure_null import load_bench, measure_null
from gaugeblock.fixtures.similarity.prompts import LENGTH, prompts_digest, texts
from gaugeblock.fixtures.similarity.variants import SERVED


@pytest.fixture(scope="module")
def bench():
    return load_bench(tiny_model(), count=6)


@pytest.fixture(scope="module")
def null(bench):
    return measure_null(bench, ["bf16", "int8-weights"], roundings=4)


def test_a_null_says_what_it_is_of(bench, null):
    assert list(null.overlaps) == ["fp32-again", "bf16", "int8-weights"]
    assert [len(roundings) for roundings in null.overlaps.values()] == [1, 4, 4]
    for rounding in null.overlaps["bf16"]:
        assert [len(row) for row in rounding] == [len(ids) for ids in bench.prompts]
    assert len({float(rounding[0].mean()) for rounding in null.overlaps["int8-weights"]}) == 4
    assert all((row == 1).all() for row in null.overlaps["fp32-again"][0])
    assert null.model == {"name": "tiny-llama", "digest": model_digest(tiny_model())}
    assert null.prompts["digest"] == prompts_digest(bench.prompts)
    assert {"date", "torch", "transformers", "device", "reference"} <= set(null.provenance)


def test_it_survives_a_file(null, tmp_path):
    files.save(null, tmp_path / "null.json")
    again = files.load(tmp_path / "null.json")
    assert (again.model, again.prompts, again.provenance) == (null.model, null.prompts, null.provenance)
    for name, roundings in null.overlaps.items():
        for ours, theirs in zip(roundings, again.overlaps[name], strict=True):
            assert all(np.allclose(a, b, atol=1e-7) for a, b in zip(ours, theirs, strict=True))
    assert again.tail(GATES["bf16"]) == pytest.approx(null.tail(GATES["bf16"]), abs=1e-6)
    assert again.gate(GATES["fp32"]) == GATES["fp32"]


def test_a_limit_lies_below_what_was_seen_and_not_far(null):
    seen = min(files.first_percentile(np.concatenate(rounding)) for rounding in null.overlaps["bf16"])
    assert seen - 0.1 < null.tail(GATES["bf16"]) <= seen
    assert null.tail(GATES["int8"]) <= null.tail(GATES["bf16"])
    assert len(null.limits(GATES["int8"])) == 4


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: data.update(schema_version=1), "no calibration of version 2"),
        (lambda data: data.pop("footer"), "no calibration of version 2"),
        (lambda data: data.pop("overlaps"), "lacks or garbles"),
        (lambda data: data.update(overlaps={"bf16": [[["x"]]]}), "lacks or garbles"),
        (lambda data: data["overlaps"]["bf16"][1].pop(), "not all of the same positions"),
        (lambda data: data.update(overlaps={}), "no measured variant"),
        (lambda data: data["model"].pop("digest"), "lacks or garbles"),
    ],
)
def test_what_is_no_calibration_is_refused(null, tmp_path, change, words):
    path = tmp_path / "null.json"
    files.save(null, path)
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    with pytest.raises(KitError, match=words):
        files.load(path)


def test_files_that_cannot_be_read_or_written(null, tmp_path):
    with pytest.raises(KitError, match="cannot read"):
        files.load(tmp_path / "none.json")
    with pytest.raises(KitError, match="cannot write"):
        files.save(null, tmp_path / "no" / "folder.json")
    with pytest.raises(KitError, match="no model folder"):
        model_digest(tmp_path)


def test_another_models_weights_have_another_digest(tmp_path):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((tiny_model() / name).read_bytes())
    assert model_digest(tmp_path) == model_digest(tiny_model())
    weights = bytearray((tmp_path / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (tmp_path / "model.safetensors").write_bytes(weights)
    assert model_digest(tmp_path) != model_digest(tiny_model())


def test_the_command(tmp_path):
    out = tmp_path / "null.json"
    done = CliRunner().invoke(
        calibrate, ["--model", str(tiny_model()), "--null", "bf16", "--roundings", "3", "--out", str(out)]
    )
    assert done.exit_code == 0, done.output
    null = files.load(out)
    assert f"gate bf16: worst prompt above 0.95, first percentile above {null.tail(GATES['bf16']):.4f}," in done.output
    assert "times as far off as usual" in done.output
    assert "(of 3 roundings" in done.output
    assert "gate int8: not calibrated" in done.output


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--model", "/nowhere", "--out", "x"], "no model folder"),
        (["--model", str(tiny_model()), "--null", "int9", "--out", "x"], "Did you mean 'int8-kv'|Legal:"),
    ],
)
def test_misuse_of_the_command(args, words):
    done = CliRunner().invoke(calibrate, args)
    assert isinstance(done.exception, KitError)
    with pytest.raises(KitError, match=words):
        raise done.exception


def test_too_few_roundings_are_refused(bench):
    with pytest.raises(KitError, match="2 roundings do not show how they differ: measure at least 3"):
        measure_null(bench, ["bf16"], roundings=2)


def test_the_prompts_are_24_and_long_enough():
    assert len(texts()) == len(set(texts())) == 24
    assert all(len(text.encode()) >= LENGTH - 4 for text in texts())


def test_the_int8_path_with_activations_has_a_null_of_its_own(bench):
    found = measure_null(bench, ["int8-activations"])
    assert list(found.overlaps) == ["fp32-again", "int8-activations"]
    (once,) = found.overlaps["int8-activations"]
    means = [float(row.mean()) for row in once]
    assert 0.95 < min(means) < max(means) < 1
    gate = found.gate(GATES["int8"])
    assert 0.5 < gate.tail < 1
    assert (gate.excess, len(gate.usual)) == (None, 0), "one rounding shows no spread"
    assert len(found.limits(GATES["int8"])) == 4
    with pytest.raises(KitError, match="needs a null of fp16 or bf16"):
        found.gate(GATES["bf16"])
    elsewhere = SimpleNamespace(name_or_path=str(Path(__file__).parent))
    with pytest.raises(KitError, match="int8-activations: "):
        SERVED["int8-activations"](elsewhere)
