"""The check record: everything about a check in one decorator, and the registry that finds them all."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import pytest

from gaugeblock.conformance.errors import KitError
from gaugeblock.fixtures.faults.record import Fault, load_faults

LAYERS = {
    "kernels": "KER",
    "prefill": "PRE",
    "kv": "KV",
    "hybrid": "HYB",
    "engine": "ENG",
    "router": "RTR",
    "load": "LOAD",
}
"""Layers from the lowest to the highest, each with the prefix of its check ids."""

Level = Literal["core", "extended"]
Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Check:
    """One conformance check.

    ``feature`` is what a target must claim for the check to apply. ``bound`` states the tolerance and why it is that.
    ``gate`` marks the smoke gate: when it fails, the other checks of its layer are blocked. ``timeout`` in seconds.
    ``destructive`` checks have been seen to take down a real server; they run after all others.
    """

    id: str
    title: str
    explanation: str
    layer: str
    feature: str
    level: Level
    sources: tuple[str, ...]
    bound: str
    gate: bool
    destructive: bool
    timeout: float
    module: str

    @property
    def faults(self) -> list[Fault]:
        """The planted faults that must trip this check (each fault names its check)."""
        return [fault for fault in load_faults().values() if fault.check == self.id]


def check(
    check_id: str,
    *,
    feature: str,
    bound: str,
    level: Level = "core",
    sources: tuple[str, ...] = (),
    gate: bool = False,
    destructive: bool = False,
    timeout: float = 30.0,
) -> Callable[[Function], Function]:
    """Register a pytest function ``test_<id>`` in a file ``test_<id>_<words>.py`` as a check.

    The docstring's first line is the title; the rest says what is wrong when it fails and what to look at first.

    Raises:
        KitError: id, file name, function name and layer do not agree, or the docstring is too short to help.
    """

    def register(function: Function) -> Function:
        record = _record(function, check_id, feature, bound, level, sources, gate, destructive, timeout)
        function.gaugeblock_check = record  # type: ignore[attr-defined] # functions carry attributes
        marked: Function = pytest.mark.timeout(timeout)(function)
        return marked

    return register


def _record(
    function: Callable[..., Any],
    check_id: str,
    feature: str,
    bound: str,
    level: Level,
    sources: tuple[str, ...],
    gate: bool,
    destructive: bool,
    timeout: float,
) -> Check:
    module = function.__module__
    layer = module.split(".")[-2]
    slug = check_id.lower().replace("-", "_")
    problems = []
    if not re.fullmatch(rf"{LAYERS.get(layer, '?')}-\d{{3}}", check_id):
        problems.append(f"id must be {LAYERS.get(layer, '?')}-NNN in conformance/{layer}")
    if function.__name__ != f"test_{slug}":
        problems.append(f"function must be named test_{slug}, not {function.__name__}")
    if not module.split(".")[-1].startswith(f"test_{slug}_"):
        problems.append(f"file must be named test_{slug}_<words>.py")
    title, _, explanation = (function.__doc__ or "").strip().partition("\n")
    if not title or not explanation.strip():
        problems.append("docstring needs a title line, a blank line, and what to look at first on failure")
    if problems:
        raise KitError(f"check {check_id} in {module}: " + "; ".join(problems))
    explanation = "\n".join(line.strip() for line in explanation.strip().splitlines())
    return Check(
        check_id,
        title.rstrip("."),
        explanation,
        layer,
        feature,
        level,
        sources,
        bound,
        gate,
        destructive,
        timeout,
        module,
    )


def load_checks(layers: tuple[str, ...] = tuple(LAYERS)) -> tuple[dict[str, Check], dict[str, str]]:
    """Import every check module and return the checks by id, in layer order.

    The second dict names layers that this installation cannot load, with the remedy (torch or triton is missing).

    Raises:
        KitError: two checks share an id.
    """
    checks: dict[str, Check] = {}
    unavailable: dict[str, str] = {}
    for layer in layers:
        package = importlib.import_module(f"gaugeblock.conformance.{layer}")
        for info in sorted(pkgutil.iter_modules(package.__path__), key=lambda i: i.name):
            if not info.name.startswith("test_"):
                continue
            try:
                module = importlib.import_module(f"{package.__name__}.{info.name}")
            except ModuleNotFoundError as error:
                if error.name and error.name.partition(".")[0] in {"torch", "triton", "safetensors"}:
                    unavailable[layer] = f"needs {error.name}: pip install 'gaugeblock[gpu]'"
                    continue
                raise
            for value in vars(module).values():
                record = getattr(value, "gaugeblock_check", None)
                if isinstance(record, Check) and record.module == module.__name__:
                    if record.id in checks:
                        raise KitError(f"two checks are named {record.id}: {checks[record.id].module}, {record.module}")
                    checks[record.id] = record
    return checks, unavailable


def check_path(record: Check) -> Path:
    """Return the file that holds a check."""
    module = importlib.import_module(record.module)
    assert module.__file__ is not None
    return Path(module.__file__)
