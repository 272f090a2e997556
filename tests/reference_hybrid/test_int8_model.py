"""``serve engine --quantization int8``: INT8 weights are made once, kept, and what is wrong is one line."""

import json

import pytest
import torch
from click.testing import CliRunner

from gaugeblock.conformance.cli import serve
from gaugeblock.fixtures.embedded import tiny_model
from gaugeblock.fixtures.errors import KitError
from gaugeblock.reference.engine.build import build_scheduler, check_config
from gaugeblock.reference.engine.config import load_config
from gaugeblock.reference.engine.errors import ConfigError
from gaugeblock.reference.engine.loader import load_weights
from gaugeblock.reference.engine.types import EngineConfig
from gaugeblock.reference.hybrid import int8_model
from gaugeblock.reference.hybrid.int8_file import named_tensors
from gaugeblock.reference.hybrid.operators import DOWN, HEAD, QKV, model_operators, of_layer
from gaugeblock.reference.hybrid.placement import PlacementError
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
    [({"quantization": "int4"}, "quantization must be one of int8, got 'int4'")],
)
def test_what_cannot_be_built_is_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        check_config(config(**fields))


def place(path, *on_device):
    names = model_operators(load_config(tiny_model()).num_hidden_layers)
    path.write_text(json.dumps({name: "device" if name in on_device else "host" for name in names}))
    return {"placement_path": str(path), "device": "pretend", "quantization": "int8"}


def test_what_a_placement_puts_on_the_device_is_in_fp32(tmp_path):
    folder, model_config = tiny_model(), load_config(tiny_model())
    saved = str(tmp_path / "int8.safetensors")
    alone = build_scheduler(config(quantization="int8", quantized_path=saved), model_config, folder)
    exact = build_scheduler(config(), model_config, folder)
    ids, roots = torch.arange(30), {alone.kv.root, exact.kv.root}
    for number, on_device in enumerate(((), (of_layer(1, DOWN), of_layer(2, QKV), HEAD), model_operators(4))):
        fields = place(tmp_path / "placement.json", *on_device)
        mixed = build_scheduler(config(quantized_path=saved, **fields), model_config, folder)
        wide = [name for name, _ in mixed.model.named_buffers() if not name.endswith("norm.weight")]
        assert set(wide) == {
            f"{name}.weight" for name in on_device if not name.endswith(("norm", "act_fn", "attention"))
        }
        rows = mixed.model.forward_full(ids)
        assert torch.equal(rows, alone.model.forward_full(ids)) == (not on_device)
        assert torch.allclose(rows, exact.model.forward_full(ids), atol=1e-4, rtol=0) == (number == 2)
        assert (mixed.kv.root in roots) == (not on_device)
        roots.add(mixed.kv.root)
        mixed.model.close()


def test_a_file_of_another_recipe_says_how_the_device_is_rotated(tmp_path, monkeypatch):
    saved, model_config = tmp_path / "int8.safetensors", load_config(tiny_model())
    monkeypatch.setattr(int8_model, "RECIPE", Recipe(calibrate=False, rotate_stream=False, rotate_values=False))
    int8_model.int8_model(tiny_model(), model_config, saved)
    monkeypatch.undo()
    weights = int8_model.int8_model(tiny_model(), model_config, saved, [of_layer(0, QKV)])
    assert torch.equal(weights.layers[0].qkv, load_weights(tiny_model(), model_config).layers[0].qkv)


def test_a_placement_of_another_model_is_refused_before_weights_are_made(tmp_path, monkeypatch):
    monkeypatch.delattr(int8_model, "quantize_model")
    fields = place(tmp_path / "placement.json")
    (tmp_path / "placement.json").write_text('{"lm_head": "device"}')
    with pytest.raises(PlacementError, match="operators without a place"):
        build_scheduler(config(**fields), load_config(tiny_model()), tiny_model())


def test_a_file_of_something_else_is_one_line(tmp_path):
    path = tmp_path / "int8.safetensors"
    path.write_text("not weights")
    options = ["--port", "0", "--quantization", "int8", "--quantized-path", str(path)]
    done = CliRunner().invoke(serve.engine, options)
    assert isinstance(done.exception, KitError), done.exception
    assert str(done.exception).startswith(f"cannot read INT8 weights from {path}")
    assert "\n" not in str(done.exception)
