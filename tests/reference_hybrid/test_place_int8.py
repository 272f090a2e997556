"""``gaugeblock place --quantization int8``: what is timed, counted and run is what an engine serves."""

import json

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

from gaugeblock.conformance.cli import place
from gaugeblock.fixtures.embedded import tiny_model
from gaugeblock.fixtures.errors import KitError
from gaugeblock.reference.engine.build import build_scheduler
from gaugeblock.reference.engine.config import load_config
from gaugeblock.reference.engine.types import EngineConfig
from gaugeblock.reference.hybrid import int8_model, model_profile
from gaugeblock.reference.hybrid.operators import EMBED, HEAD
from gaugeblock.reference.hybrid.placed_model import PlacedModel
from gaugeblock.reference.hybrid.placement import DEVICE, Placement
from gaugeblock.reference.hybrid.profile import Profile
from gaugeblock.reference.hybrid.recipe import Recipe

MATRICES = (EMBED, HEAD, "qkv_proj", "o_proj", "gate_up_proj", "down_proj")
TOKENS = 8


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The tiny model in INT8, made once."""
    path = tmp_path_factory.mktemp("int8") / "int8.safetensors"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(int8_model, "RECIPE", Recipe(calibrate=False))
        int8_model.int8_model(tiny_model(), load_config(tiny_model()), path)
    return path


@pytest.fixture(autouse=True)
def few_passes(monkeypatch):
    monkeypatch.setattr(model_profile, "ENOUGH", 0.01)
    monkeypatch.setattr(model_profile, "MOST_PASSES", 2)
    monkeypatch.delattr(int8_model, "quantize_model")  # the file is read, and nothing is made again


@pytest.fixture
def passes(monkeypatch):
    """By placement, the logits of each pass, and whether each matrix was a tensor: (placement, tensors, logits)."""
    seen = []

    class Seen(PlacedModel):
        def forward_full(self, input_ids):
            logits = super().forward_full(input_ids)
            names = [name for name in self.placement if name.endswith(MATRICES)]
            tensors = {name: isinstance(self.get_submodule(name).weight, Tensor) for name in names}
            seen.append((dict(self.placement), tensors, logits))
            return logits

    monkeypatch.setattr(model_profile, "PlacedModel", Seen)
    return seen


def run(out, *arguments):
    common = ["--device-budget", "2MiB", "--tokens", str(TOKENS), "--device", "pretend", "--kv-tokens", "0"]
    return CliRunner().invoke(
        place.place, [*common, "--out", str(out), *arguments], standalone_mode=False, catch_exceptions=False
    )


def int8(saved):
    return "--quantization", "int8", "--quantized-path", str(saved)


def served(saved, placement):
    config = EngineConfig(
        str(tiny_model()),
        max_total_tokens=16,
        quantization="int8",
        quantized_path=str(saved),
        placement_path=str(placement),
        device="pretend",
    )
    return build_scheduler(config, load_config(tiny_model()), tiny_model()).model


def test_every_pass_that_is_timed_is_int8_on_the_host_and_fp32_on_the_device(tmp_path, saved, passes):
    made = run(tmp_path, *int8(saved))
    assert "of the host in INT8" in made.output
    wrong = [
        number
        for number, (placement, tensors, _) in enumerate(passes)
        if any(tensors[name] != (placement[name] == DEVICE) for name in tensors)
    ]
    assert wrong == [1]  # the pass that is watched, not timed: it counts what the device would hold
    assert len({tuple(placement.values()) for placement, _, _ in passes}) >= 5  # one side, alternating, two plans


def test_what_is_counted_and_computed_is_what_is_served(tmp_path, saved, passes):
    run(tmp_path, *int8(saved), "--strategy", "edge-of-gpu")
    placement = Placement.load(tmp_path / "placement.json")
    found = Profile.load(tmp_path / "profile.json")
    assert EMBED in placement.devices
    assert 0 < len(placement.on_device) < len(placement.devices)
    model = served(saved, tmp_path / "placement.json")
    weights = dict(item for name in placement.on_device for item in found.by_name[name].weights.items() if item[1])
    held = sum(n for name, n in model.device.ledger.held.items() if not name.endswith("attention"))  # that is KV
    assert sum(weights.values()) == held
    assert placement.device_bytes == held + found.activation_bytes
    logits = [logits for places, _, logits in passes if places == placement.devices]
    assert all(torch.equal(model.forward_full(torch.arange(TOKENS) * 31 % len(row[0])), row) for row in logits)
    assert logits
    model.close()


def test_the_head_is_a_matrix_of_its_own(tmp_path, saved):
    run(tmp_path, *int8(saved))
    quantized = Profile.load(tmp_path / "profile.json")
    run(tmp_path / "fp32")
    exact = Profile.load(tmp_path / "fp32" / "profile.json")
    assert (quantized.quantization, exact.quantization) == ("int8", None)
    sizes = [{name: sum(o.weights.values()) for name, o in found.by_name.items()} for found in (quantized, exact)]
    assert sizes[0] == sizes[1]  # bytes of fp32 each
    assert not set(quantized.by_name[EMBED].weights) & set(quantized.by_name[HEAD].weights)
    records = [json.loads((folder / "strategies.json").read_text()) for folder in (tmp_path, tmp_path / "fp32")]
    assert [record["quantization"] for record in records] == ["int8", None]


def test_a_profile_of_another_precision_is_refused(tmp_path, saved):
    run(tmp_path, *int8(saved))
    with pytest.raises(KitError, match="host in INT8, and this plans for fp32"):
        run(tmp_path / "again", "--profile", str(tmp_path / "profile.json"))
    again = run(tmp_path / "again", *int8(saved), "--profile", str(tmp_path / "profile.json"))
    assert again.return_value == 0


def test_a_file_of_int8_weights_is_for_int8(tmp_path, saved):
    with pytest.raises(KitError, match="give --quantization int8, too"):
        run(tmp_path, "--quantized-path", str(saved))
    saved.with_name("broken").write_bytes(saved.read_bytes()[:-100])
    with pytest.raises(KitError, match="broken"):
        run(tmp_path, *int8(saved.with_name("broken")))
