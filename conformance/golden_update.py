"""``--gb-update-golden``: makes golden cases anew and tells what changed, case by case."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import platform
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gaugeblock.conformance.golden import VERSION, Case, digest_of, golden_folder, load_file, spell
from gaugeblock.fixtures.errors import KitError
from gaugeblock.fixtures.goldens import FAMILIES, Family
from gaugeblock.fixtures.targets.options import TargetOptions

COMMAND = "gaugeblock verify --layer {layer} --update-golden"
NOISE = 0.1  # of a tolerance: another machine's float64 sums are no news


def require_embedded(options: TargetOptions) -> None:
    """Raise :class:`KitError` if the run is about anything but the embedded reference as it is."""
    named = options.layers()
    if named or options.model or options.fault:
        what = "a planted fault" if options.fault else f"another model or target ({', '.join(named or ('model',))})"
        raise KitError(
            f"golden cases are the embedded reference's: they cannot be updated in a run with {what}. "
            "Leave everything but --layer and --check out"
        )


def update_and_tell(layers: Iterable[str]) -> None:
    """Update and print what changed; misuse ends the run with exit code 2 and one line."""
    try:
        for line in update_goldens(layers):
            print(line)
    except KitError as error:
        pytest.exit(f"gaugeblock: {error}", returncode=2)


def update_goldens(layers: Iterable[str], folder: Path | None = None) -> Iterator[str]:
    """Make the golden cases of ``layers`` anew, and yield a line for each that changed and for each file.

    A file all of whose cases stay the same is not touched, so that its provenance goes on saying when it was made.

    Raises:
        KitError: a maker lacks what it needs, or the folder cannot be written.
    """
    folder = folder or golden_folder()
    for name, family in FAMILIES.items():
        if family.layer in layers:
            for file, cases in family.make().items():
                yield from _update_file(folder / name / f"{file}.jsonl", family, cases)


def _update_file(path: Path, family: Family, made: list[Case]) -> Iterator[str]:
    where = f"golden/{path.parent.name}/{path.name}"
    before, sound = _readable_cases(path), _is_sound(path, family)
    tolerance = {field: bound for field, (bound, _) in family.tolerance.items()}
    kept = before if sound else {}
    cases = [
        kept[case["id"]] if case["id"] in kept and not differences(kept[case["id"]], case, tolerance) else case
        for case in made
    ]
    if sound and list(before.values()) == cases:
        yield f"{where}: {len(cases)} cases, none changed"
        return
    for case in cases:
        if case["id"] not in before:
            yield f"{where}: {case['id']}: new"
        elif case != before[case["id"]]:
            old = before[case["id"]]
            news = differences(old, case, tolerance) or differences(old, case, {})  # noise alone is told, too
            yield f"{where}: {case['id']}: " + "; ".join(news)
    for case_id in before:
        if case_id not in {case["id"] for case in cases}:
            yield f"{where}: {case_id}: gone"
    _write(path, family, cases)
    yield f"{where}: written, {len(cases)} cases"


def _is_sound(path: Path, family: Family) -> bool:
    try:
        load_file(path, family)
    except (KitError, OSError):
        return False
    return True


def _readable_cases(path: Path) -> dict[str, Case]:
    """What can be read of the old cases, by id, to tell the changes; a broken line is as good as none."""
    found: dict[str, Case] = {}
    for line in path.read_text(encoding="utf-8").splitlines()[1:] if path.is_file() else ():
        try:
            case = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(case, dict) and isinstance(case.get("id"), str):
            found[case["id"]] = case
    return found


def differences(old: Case, new: Case, tolerance: dict[str, float]) -> list[str]:
    """Say what changed from ``old`` to ``new``, a field each; numbers with a tolerance may move a tenth of it."""
    found = []
    for field in dict.fromkeys((*old, *new)):
        place = _first_difference(old.get(field), new.get(field), NOISE * tolerance.get(field, 0.0))
        if place is not None:
            path, before, after = place
            found.append(f"{field}{path} {_short(before)} → {_short(after)}")
    return found


def _first_difference(old: Any, new: Any, slack: float) -> tuple[str, Any, Any] | None:
    if isinstance(old, list) and isinstance(new, list):
        if len(old) != len(new):
            return "", old, new
        for index, (a, b) in enumerate(zip(old, new, strict=True)):
            place = _first_difference(a, b, slack)
            if place is not None:
                return f"[{index}]{place[0]}", place[1], place[2]
        return None
    if isinstance(old, float) and isinstance(new, float):
        return None if abs(old - new) <= slack else ("", old, new)
    return None if old == new else ("", old, new)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}… ({len(value)})"


def _write(path: Path, family: Family, cases: list[Case]) -> None:
    lines = [spell(case) for case in cases]
    provenance = {
        "schema_version": VERSION,
        "family": path.parent.name,
        "made_by": family.made_by,
        "command": COMMAND.format(layer=family.layer),
        "kit": importlib.metadata.version("gaugeblock"),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "versions": {"python": platform.python_version(), **_versions("numpy", "torch", "transformers")},
        "inputs": family.inputs(),
        "tolerance": family.tolerance_texts(),
        "cases": len(cases),
        "sha256": digest_of(lines),
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{line}\n" for line in [spell(provenance), *lines]), encoding="utf-8", newline="\n")
    except OSError as error:
        raise KitError(f"cannot write {str(path)!r}: {error.strerror}. Update goldens in a checkout") from error


def _versions(*names: str) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
