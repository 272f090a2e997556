"""A cache of its own for every test, and recipes small enough to build in a second or two."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gaugeblock.fixtures.envs import manager, recipe

RECIPE = """
name = "{name}"
version = "1"
about = "made up"
pythons = [{pythons}]
megabytes = 1
seconds = 1
probe = ["bin/python", "-c", "print('alive')"]

[[steps]]
title = "the only step"
{step}
"""
Write = Callable[..., None]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GAUGEBLOCK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def write(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write a recipe and let the manager see the made-up ones alone."""
    folder = tmp_path / "recipes"

    def write(name: str, step: str = 'script = "step.py"', script: str = "", pythons: str = '"3.11", "3.12"') -> None:
        here = folder / name
        here.mkdir(parents=True, exist_ok=True)
        (here / "recipe.toml").write_text(RECIPE.format(name=name, step=step, pythons=pythons))
        (here / "step.py").write_text(script)
        (here / "requirements.txt").write_text("surely-not-a-package==1.0\n")

    monkeypatch.setattr(manager, "load_recipe", lambda name: recipe.load_recipe(name, folder))
    monkeypatch.setattr(manager, "recipe_names", lambda: recipe.recipe_names(folder))
    return write
