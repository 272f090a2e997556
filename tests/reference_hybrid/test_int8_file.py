"""INT8 weights in a file: bit by bit the same, and refused where they are of something else."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from gaugeblock.fixtures.embedded import tiny_model
from gaugeblock.reference.engine.config import load_config
from gaugeblock.reference.engine.errors import ModelError
from gaugeblock.reference.engine.loader import load_weights as load_exact
from gaugeblock.reference.hybrid.int8_file import (
    FORMAT,
    content_digest,
    load_weights,
    named_tensors,
    save_weights,
    stored_bytes,
)
from gaugeblock.reference.hybrid.recipe import Recipe, quantize_model

REVISION = "a" * 64
RECIPE = Recipe(calibrate=False)


@pytest.fixture(scope="module")
def config():
    return load_config(tiny_model())


@pytest.fixture(scope="module")
def exact(config):
    return load_exact(tiny_model(), config)


@pytest.fixture(scope="module")
def weights(config, exact):
    return quantize_model(exact, config, [], RECIPE)


@pytest.fixture
def path(weights, tmp_path):
    save_weights(tmp_path / "int8.safetensors", weights, REVISION, RECIPE)
    return tmp_path / "int8.safetensors"


def rewrite(path, change_tensors=lambda _: None, change_about=lambda _: None):
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()[FORMAT])
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    change_tensors(tensors)
    change_about(about)
    save_file(tensors, path, metadata={FORMAT: json.dumps(about)})


def test_what_is_read_is_what_was_written_bit_by_bit(weights, config, path):
    again = load_weights(path, config, REVISION)
    wanted, found = dict(named_tensors(weights)), dict(named_tensors(again))
    assert wanted.keys() == found.keys()
    assert all(torch.equal(tensor, found[name]) for name, tensor in wanted.items())
    assert all(tensor.dtype == found[name].dtype for name, tensor in wanted.items())
    assert again.head.values is again.embed.values
    assert content_digest(again) == content_digest(weights)
    assert [file.name for file in path.parent.iterdir()] == [path.name], "no draft is left behind"


def test_it_takes_little_more_than_a_byte_a_weight(weights, exact, path):
    matrices = [
        exact.embed,
        *(getattr(one, name) for one in exact.layers for name in ("qkv", "out", "gate_up", "down")),
    ]
    numbers = sum(matrix.numel() for matrix in matrices)
    assert numbers < stored_bytes(weights) < 1.15 * numbers
    assert path.stat().st_size < 1.02 * stored_bytes(weights)


def test_an_untied_head_has_tensors_of_its_own(exact, config, tmp_path):
    untied = quantize_model(replace(exact, head=exact.embed * 2), config, [], RECIPE)
    save_weights(tmp_path / "untied", untied, REVISION, RECIPE)
    again = load_weights(tmp_path / "untied", config, REVISION)
    assert torch.equal(again.head.scales, untied.head.scales)
    assert not torch.equal(again.head.scales, again.embed.scales)


@pytest.mark.parametrize(
    ("keep", "message"), [(0, "cannot read"), (7, "cannot read"), (500, "cannot read"), (-1, "cannot read")]
)
def test_a_file_that_broke_off_is_refused(keep, message, path, config):
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ModelError, match=message):
        load_weights(path, config, REVISION)


def test_a_flipped_bit_is_noticed(path, config):
    data = bytearray(path.read_bytes())
    data[-1000] ^= 1
    path.write_bytes(data)
    with pytest.raises(ModelError, match="damaged: its tensors are not those that were written"):
        load_weights(path, config, REVISION)


def test_weights_of_another_revision_are_refused(path, config):
    with pytest.raises(
        ModelError, match=r"was made from weights aaaaaaaaaaaa…, the model has bbbbbbbbbbbb…; remove it"
    ):
        load_weights(path, config, "b" * 64)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda about: about.update(version=2), "has version 2, this kit reads 1"),
        (lambda about: about.pop("digest"), "metadata of .* is damaged: a field is missing"),
        (lambda about: about.pop("version"), "metadata of .* is damaged"),
        (lambda about: about.update(digest="0"), "damaged"),
    ],
)
def test_metadata_that_does_not_fit_is_refused(change, message, path, config):
    rewrite(path, change_about=change)
    with pytest.raises(ModelError, match=message):
        load_weights(path, config, REVISION)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": 128}, r"embed.values is torch.int8 \(320, 256\), the model needs torch.int8 \(320, 128\)"),
        ({"num_hidden_layers": 5}, "lacks tensor layers.4.input_norm"),
    ],
)
def test_another_shape_of_model_is_refused(change, message, path, config):
    with pytest.raises(ModelError, match=message):
        load_weights(path, replace(config, **change), REVISION)


def test_other_files_are_refused(path, config, tmp_path):
    with pytest.raises(ModelError, match="holds no INT8 weights of gaugeblock"):
        load_weights(tiny_model() / "model.safetensors", config, REVISION)
    with pytest.raises(ModelError, match="cannot read INT8 weights"):
        load_weights(tmp_path / "nowhere", config, REVISION)
    with pytest.raises(ModelError, match="cannot read INT8 weights"):
        load_weights(tiny_model() / "config.json", config, REVISION)
    with pytest.raises(ModelError, match="cannot write INT8 weights"):
        save_weights(tmp_path / "no" / "folder", load_weights(path, config, REVISION), REVISION, RECIPE)
