"""The command that starts the real SGLang, and the patch of its environment."""

from __future__ import annotations

import itertools
import runpy
from pathlib import Path

import pytest

from gaugeblock.fixtures.envs.manager import Environment
from gaugeblock.fixtures.envs.recipe import load_recipe
from gaugeblock.fixtures.envs.sglang_cpu import model_folder, server_argv, server_environ
from gaugeblock.fixtures.errors import KitError

REGISTRATION = '@torch.library.register_fake("torchvision::nms")\ndef meta_nms(): ...\n'


@pytest.fixture
def env(tmp_path: Path) -> Environment:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    return Environment(load_recipe("sglang-cpu"), tmp_path)


def test_the_command_is_bounded_and_on_loopback(env: Environment) -> None:
    argv = server_argv(env, port=4711, extra=("--chunked-prefill-size", "64"))
    pairs = dict(itertools.pairwise(argv[3:]))
    assert argv[:3] == [str(env.python), "-m", "sglang.launch_server"]
    assert (pairs["--host"], pairs["--port"], pairs["--dtype"]) == ("127.0.0.1", "4711", "float32")
    assert pairs["--model-path"] == str(model_folder(env))
    assert int(pairs["--max-total-tokens"]) == 16384
    assert argv[-2:] == ["--chunked-prefill-size", "64"]


def test_the_variables_keep_it_off_the_network(env: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    variables = server_environ(env)
    assert variables["SGLANG_USE_CPU_ENGINE"] == variables["OMP_NUM_THREADS"] == variables["HF_HUB_OFFLINE"] == "1"
    assert variables["HF_ENDPOINT"].startswith("http://127.0.0.1:")
    assert "PYTHONPATH" not in variables


def test_a_missing_model_folder_is_named(env: Environment, tmp_path: Path) -> None:
    with pytest.raises(KitError, match="nowhere"):
        server_argv(env, port=1, model=tmp_path / "nowhere")


def test_the_patch_guards_once_and_refuses_another_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "torchvision" / "_meta_registrations.py"
    path.parent.mkdir()
    path.write_text(REGISTRATION)
    monkeypatch.setattr("sysconfig.get_paths", lambda: {"purelib": str(tmp_path)})
    script = load_recipe("sglang-cpu").folder / "patch_torchvision.py"
    for _ in range(2):
        runpy.run_path(str(script), run_name="__main__")
        text = path.read_text()
        assert text.count("_has_ops()") == 1
        compile(text, "patched", "exec")
    path.write_text("nothing to guard")
    with pytest.raises(SystemExit, match="no registration"):
        runpy.run_path(str(script), run_name="__main__")
