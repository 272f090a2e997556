"""Install, find, rebuild, remove; with scripts for steps, so that nothing is downloaded."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from gaugeblock.fixtures.envs import manager
from gaugeblock.fixtures.envs.recipe import load_recipe, recipe_names
from gaugeblock.fixtures.errors import EnvironmentFault, KitError

COUNT = "import sys, pathlib; p = pathlib.Path(sys.argv[1]).parent / 'ran'; p.open('a').write('x')"


def ran(cache: Path) -> int:
    path = cache / "envs" / "ran"
    return len(path.read_text()) if path.exists() else 0


def test_install_is_idempotent_and_leaves_a_stamp(write, cache: Path) -> None:
    write("small", script=COUNT)
    said: list[str] = []
    env = manager.install("small", said.append)
    assert manager.install("small") == env == manager.find("small")
    assert ran(cache) == 1
    stamp = json.loads((env.root / manager.STAMP).read_text())
    assert (stamp["name"], stamp["recipe"]) == ("small", env.recipe.digest)
    assert any("the only step" in line for line in said)
    assert env.root.name == f"small-{env.recipe.digest}"
    assert env.environ()["HF_HUB_OFFLINE"] == "1"


@pytest.mark.slow
def test_half_built_is_rebuilt_and_removed(write, cache: Path) -> None:
    write("small", script=COUNT)
    env = manager.install("small")
    (env.root / manager.STAMP).unlink()
    (env.root / "leftover").write_text("of an interrupted installation")
    assert manager.find("small") is None
    assert [s.state for s in manager.status()] == ["half-built"]
    assert manager.install("small").root == env.root
    assert not (env.root / "leftover").exists()
    assert ran(cache) == 2
    assert manager.remove("small") == [env.root]
    assert [s.state for s in manager.status()] == ["absent"]
    assert manager.remove("small") == []


@pytest.mark.slow
def test_two_installers_make_one_environment(write, cache: Path) -> None:
    write("small", script=COUNT + "; import time; time.sleep(0.2)")
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(manager.install("small"))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 2
    assert found[0] == found[1]
    assert ran(cache) == 1


@pytest.mark.slow
def test_a_failing_step_is_one_line_with_the_log(write, cache: Path) -> None:
    write("broken", script="raise SystemExit('error: no wheels today')")
    with pytest.raises(EnvironmentFault) as caught:
        manager.install("broken")
    text = str(caught.value)
    assert "\n" not in text
    assert "the only step" in text
    assert "no wheels today" in text
    log = Path(text.partition("log: ")[2])
    assert "no wheels today" in log.read_text()
    assert manager.find("broken") is None


@pytest.mark.slow
def test_no_network_is_said_in_one_line(write, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write("net", step='pip = ["install", "-r", "requirements.txt"]')
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    with pytest.raises(EnvironmentFault) as caught:
        manager.install("net")
    text = str(caught.value)
    assert "the package index cannot be reached" in text
    assert "gaugeblock env install net" in text
    assert "\n" not in text


def test_no_python_lists_what_was_looked_at(write, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write("old", pythons='"3.4"')
    monkeypatch.setenv("GAUGEBLOCK_PYTHON", "/nowhere/python3.4")
    with pytest.raises(EnvironmentFault, match=r"Python 3\.4.*/nowhere/python3\.4 \(does not run.*GAUGEBLOCK_PYTHON"):
        manager.install("old")


def test_an_unknown_name_lists_the_legal_ones(cache: Path) -> None:
    with pytest.raises(KitError, match=r"'genaibench'.*'genai-bench'.*sglang-cpu.*sglang-router.*smg"):
        manager.find("genaibench")


def test_a_missing_environment_names_its_remedy(cache: Path) -> None:
    with pytest.raises(EnvironmentFault, match="gaugeblock env install smg"):
        manager.require("smg")


def test_a_cache_that_cannot_be_written_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("")
    monkeypatch.setenv("GAUGEBLOCK_CACHE", str(blocker / "cache"))
    with pytest.raises(EnvironmentFault, match="GAUGEBLOCK_CACHE"):
        manager.install("smg")


def test_a_changed_pin_is_another_environment(write, tmp_path: Path) -> None:
    folder = tmp_path / "recipes"
    write("net", step='pip = ["install", "-r", "requirements.txt"]')
    before = load_recipe("net", folder).digest
    (folder / "net" / "requirements.txt").write_text("another==2.0\n")
    assert load_recipe("net", folder).digest != before


@pytest.mark.parametrize("name", recipe_names())
def test_every_lock_is_exact(name: str) -> None:
    recipe = load_recipe(name)
    lines = [line for path in recipe.folder.glob("requirements*.txt") for line in path.read_text().split()]
    assert lines
    assert [line for line in lines if line.count("==") != 1] == []
    pins = [line.partition("==")[0].lower().replace("_", "-") for line in lines]
    assert len(set(pins)) == len(pins)
    files = [a for s in recipe.steps for a in (*s.pip, s.script) if a and a.endswith((".txt", ".py"))]
    assert all((recipe.folder / file).is_file() for file in files), files
