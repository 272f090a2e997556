"""A folder that cannot be served is refused with its path and what is needed."""

import json
import shutil

import pytest

from gaugeblock.reference.engine.config import load_config, model_folder
from gaugeblock.reference.engine.engine import Engine
from gaugeblock.reference.engine.errors import ConfigError, ModelError
from gaugeblock.reference.engine.loader import load_weights
from gaugeblock.reference.engine.types import EngineConfig


def change(path, **fields):
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, **fields}))


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def test_missing_folder(tmp_path):
    with pytest.raises(ModelError, match=r"no model folder at .*nowhere.*config\.json, model\.safetensors"):
        Engine(EngineConfig(str(tmp_path / "nowhere")))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_missing_file(copy, name):
    (copy / name).unlink()
    with pytest.raises(ModelError, match=f"lacks {name}"):
        model_folder(str(copy))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"architectures": ["MambaForCausalLM"]}, r"\['MambaForCausalLM'\] cannot be served, only LlamaForCausalLM"),
        ({"architectures": None}, r"\[\] cannot be served, only .* and MistralForCausalLM can"),
        ({"sliding_window": 64}, "sliding_window 64 has no meaning for LlamaForCausalLM, only for MistralForCausalLM"),
        ({"architectures": ["MistralForCausalLM"], "sliding_window": 0}, "sliding_window must be >= 1 or null, got 0"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu' is not implemented"),
        ({"attention_bias": True}, "attention_bias True is not implemented"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rope_type 'yarn' is not implemented"),
        ({"rope_parameters": None, "rope_scaling": {"type": "linear"}}, "rope_type 'linear' is not implemented"),
        ({"hidden_size": "wide"}, "wrong type"),
    ],
)
def test_unsupported_config(copy, fields, message):
    change(copy / "config.json", **fields)
    with pytest.raises(ModelError, match=message) as caught:
        load_config(copy)
    assert "config.json" in str(caught.value)


def test_missing_config_field(copy):
    config = json.loads((copy / "config.json").read_text())
    del config["vocab_size"]
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="vocab_size"):
        load_config(copy)


def test_older_rope_theta_at_the_top(copy):
    change(copy / "config.json", rope_parameters=None, rope_theta=12345.0)
    assert load_config(copy).rope_theta == 12345.0


def test_broken_json(copy):
    (copy / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"cannot read .*config\.json"):
        load_config(copy)


def test_weights_of_another_shape(copy):
    change(copy / "config.json", intermediate_size=128)
    with pytest.raises(ModelError, match=r"gate_proj.* has shape \(96, 64\), config.json asks for \(128, 64\)"):
        load_weights(copy, load_config(copy))


def test_missing_tensor(copy):
    change(copy / "config.json", num_hidden_layers=3)
    with pytest.raises(ModelError, match=r"lacks tensor model\.layers\.2"):
        load_weights(copy, load_config(copy))


def test_truncated_weights(copy):
    data = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(ModelError, match=r"cannot read .*safetensors"):
        load_weights(copy, load_config(copy))


def test_broken_tokenizer(copy):
    (copy / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match=r"tokenizer\.json"):
        Engine(EngineConfig(str(copy)))


@pytest.mark.parametrize(
    "fields",
    [{"page_size": 0}, {"max_total_tokens": 1}, {"chunked_prefill_size": 0}, {"max_queued_requests": -1}],
)
def test_impossible_engine_config(folder, fields):
    (name,) = fields
    with pytest.raises(ConfigError, match=f"{name} must be >="):
        Engine(EngineConfig(str(folder), **fields))


def test_weights_lie_at_aligned_addresses_whatever_the_file(folder, tmp_path):
    """Kernels, and with them bits, depend on where a matrix begins; a file's tensors begin anywhere."""
    from safetensors.torch import load_file, save_file

    copy = shutil.copytree(folder, tmp_path / "copy")
    tensors = {name: tensor.float() for name, tensor in load_file(copy / "model.safetensors").items()}
    for odd in range(1, 4):
        save_file(tensors, copy / "model.safetensors", metadata={"pad": "x" * 8 * odd})
        weights = load_weights(copy, load_config(copy))
        every = [
            weights.embed,
            weights.norm,
            weights.head,
            *(t for layer in weights.layers for t in vars(layer).values()),
        ]
        assert {tensor.data_ptr() % 64 for tensor in every} == {0}
