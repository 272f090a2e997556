"""``serve engine --quantization int8``: INT8 weights are made once, kept, and what is wrong is one line."""

import pytest
import torch
from click.testing import CliRunner

from gaugeblock.conformance.cli import serve
from gaugeblock.fixtures.embedded import tiny_model
from gaugeblock.fixtures.errors import KitError
from gaugeblock.reference.engine.build import build_scheduler, check_config
from gaugeblock.reference.engine.config import load_config
from gaugeblock.reference.engine.errors import ConfigError
from gaugeblock.reference.engine.types import EngineConfig
from gaugeblock.reference.hybrid import int8_model
from gaugeblock.reference.hybrid.int8_file import named_tensors
from gaugeblock.reference.hybrid.recipe import Recipe


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(int8_model, "RECIPE", Recipe(calibrate=False))


def config(**fields):
    return EngineConfig(str(tiny_model()), max_total_tokens=256, **fields)


def test_the_weights_are_made_at_the_first_start_and_read_at_the_next(tmp_path, monkeypatch):
    saved = tmp_path / "int8.safetensors"
    model_config = load_config(tiny_model())
    made = int8_model.int8_model(tiny_model(), model_config, saved)
    monkeypatch.delattr(int8_model, "quantize_model")
    read = dict(named_tensors(int8_model.int8_model(tiny_model(), model_config, saved)))
    assert all(torch.equal(tensor, read[name]) for name, tensor in named_tensors(made))


def test_an_engine_computes_in_int8_over_kv_of_its_own(tmp_path):
    folder, model_config = tiny_model(), load_config(tiny_model())
    exact = build_scheduler(config(), model_config, folder)
    rough = build_scheduler(config(quantization="int8"), model_config, folder)
    ids = torch.arange(30)
    off = (exact.model.forward_full(ids) - rough.model.forward_full(ids)).abs().max()
    assert 0 < off < 2
    assert exact.kv.root != rough.kv.root


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"quantization": "int4"}, "quantization must be one of int8, got 'int4'"),
        ({"quantization": "int8", "placement_path": "x"}, "runs on the host alone"),
    ],
)
def test_what_cannot_be_built_is_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        check_config(config(**fields))


def test_a_file_of_something_else_is_one_line(tmp_path):
    path = tmp_path / "int8.safetensors"
    path.write_text("not weights")
    options = ["--port", "0", "--quantization", "int8", "--quantized-path", str(path)]
    done = CliRunner().invoke(serve.engine, options)
    assert isinstance(done.exception, KitError), done.exception
    assert str(done.exception).startswith(f"cannot read INT8 weights from {path}")
    assert "\n" not in str(done.exception)
