"""``gaugeblock place``: a profile, three plans, a table and the files."""

import json

import pytest
from click.testing import CliRunner

from gaugeblock.conformance.cli import place
from gaugeblock.fixtures.errors import EnvironmentFault, KitError
from gaugeblock.reference.hybrid import model_profile, planner
from gaugeblock.reference.hybrid.placement import Placement
from gaugeblock.reference.hybrid.placement_problem import problem_of
from gaugeblock.reference.hybrid.profile import Profile


@pytest.fixture(autouse=True)
def _few_passes(monkeypatch):
    monkeypatch.setattr(model_profile, "ENOUGH", 0.01)
    monkeypatch.setattr(model_profile, "MOST_PASSES", 2)


def run(*arguments):
    return CliRunner().invoke(place.place, arguments, standalone_mode=False, catch_exceptions=False)


def test_three_plans_are_made_and_measured(tmp_path):
    common = ("--device-budget", "1GiB", "--tokens", "8", "--device", "cpu")
    made = run(*common, "--out", str(tmp_path), "--strategy", "edge-of-gpu")
    assert made.return_value == 0
    for name in planner.STRATEGIES:
        assert name in made.output
    placement = Placement.load(tmp_path / "placement.json")
    assert placement.strategy == "edge-of-gpu"
    heavy = ("qkv_proj", "attention", "o_proj", "gate_up_proj", "down_proj", "lm_head")
    assert all(name.endswith(heavy) for name in placement.on_device)
    assert len(placement.on_device) == 21
    assert sum(name.endswith("norm") for name in placement.devices) == 9
    record = json.loads((tmp_path / "strategies.json").read_text())
    assert [row["strategy"] for row in record["strategies"]] == list(planner.STRATEGIES)
    assert all(row["measured"]["least"] > 0 for row in record["strategies"])
    found = Profile.load(tmp_path / "profile.json")
    assert set(placement.devices) < set(found.by_name)
    assert found.by_name["model.layers.0.self_attn.attention"].weights == {
        "model.layers.0.self_attn.attention.kv": 2 * 2 * 64 * 4 * 1024
    }
    assert {"model.layers.0.input_layernorm", "model.layers.0.post_attention_layernorm"} in [
        {edge.producer, edge.consumer} for edge in found.edges
    ]  # the residual
    tables = [value for value in problem_of(found).values if len(value.consumers) == 4]
    assert len(tables) == 2  # rotations move once for all attention

    again = run(*common, "--out", str(tmp_path / "again"), "--profile", str(tmp_path / "profile.json"))
    assert again.return_value == 0
    assert Placement.load(tmp_path / "again" / "placement.json").strategy == "operator"


def test_a_profile_of_another_model_is_refused(tmp_path):
    from gaugeblock.fixtures.targets.placement_problems import chain_edges, profile_of

    profile_of([(1.0, 1.0)], [{}], chain_edges([0, 0])).save(tmp_path / "profile.json")
    with pytest.raises(KitError, match="profile of another model"):
        run("--device-budget", "1GiB", "--out", str(tmp_path), "--profile", str(tmp_path / "profile.json"))


def test_what_is_not_there_is_said(tmp_path, monkeypatch):
    with pytest.raises(KitError, match="no model folder"):
        run("--device-budget", "1GiB", "--model", str(tmp_path))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(EnvironmentFault, match="no CUDA device here"):
        run("--device-budget", "1GiB", "--device", "cuda", "--out", str(tmp_path))
    (tmp_path / "file").touch()
    with pytest.raises(KitError, match=r"cannot write into .*--out"):
        run("--device-budget", "1GiB", "--out", str(tmp_path / "file"))


@pytest.mark.parametrize("size", ["2XB", "-1", "much", "0.1"])
def test_sizes_that_are_none_are_refused(size):
    made = CliRunner().invoke(place.place, ["--device-budget", size])
    assert made.exit_code == 2
    assert "KiB, MB, MiB, GB, GiB" in made.output or "less than one byte" in made.output
