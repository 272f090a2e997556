"""Golden cases: JSON lines with their provenance, that nobody edits by hand and no check leaves unused.

The first line of ``golden/<family>/<name>.jsonl`` is the provenance; it holds a SHA-256 over the lines below it, one
case each. Numbers come from a maker that shares no code with the reference (:mod:`gaugeblock.fixtures.goldens`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from gaugeblock.fixtures.errors import KitError
from gaugeblock.fixtures.goldens import FAMILIES, Family
from gaugeblock.fixtures.goldens.fields import check_fields

VERSION = 1
REMEDY = "take the shipped file back, or remake it: gaugeblock verify --update-golden"

PROVENANCE = {
    "schema_version": "int",
    "family": "text",
    "made_by": "text",
    "command": "text",
    "kit": "text",
    "date": "text",
    "versions": "texts",
    "inputs": "texts",  # SHA-256 of what the numbers were made from, by name
    "tolerance": "texts",  # of a field: how much, and why
    "cases": "int",
    "sha256": "digest",
}
"""Fields of the first line."""

Case = dict[str, Any]


def golden_folder() -> Path:
    """The folder that ships with the kit."""
    return Path(str(resources.files("gaugeblock.golden")))


@dataclass
class GoldenFile:
    """The cases of one file. A case counts as used once it was taken by :meth:`__iter__`."""

    path: Path
    provenance: Case
    cases: list[Case]
    used: set[str] = field(default_factory=set)

    def __iter__(self) -> Iterator[Case]:
        for case in self.cases:
            self.used.add(case["id"])
            yield case


@contextmanager
def goldens(family: str, folder: Path | None = None) -> Iterator[dict[str, GoldenFile]]:
    """Give a check all files of its family by name, and hold it to take every case.

    Raises:
        KitError: a file is missing, unknown, malformed or edited, was made for other inputs, or a case was not used.
    """
    files = load_family(family, folder or golden_folder())
    yield files
    unused = [f"{f.path.name}: {case['id']}" for f in files.values() for case in f.cases if case["id"] not in f.used]
    if unused:
        raise KitError(f"golden/{family}: no check used {', '.join(unused)}: have it checked, or take it out")


def load_family(name: str, folder: Path) -> dict[str, GoldenFile]:
    """Read and verify all files of a family, by name without suffix."""
    require_no_strangers(folder)
    family = FAMILIES[name]
    return {file: load_file(folder / name / f"{file}.jsonl", family) for file in family.files}


def require_no_strangers(folder: Path) -> None:
    """Raise :class:`KitError` for a golden file that no check names, or that is missing."""
    known = {f"{name}/{file}.jsonl" for name, family in FAMILIES.items() for file in family.files}
    found = {path.relative_to(folder).as_posix() for path in folder.glob("*/*.jsonl")}
    for path in sorted(found - known):
        raise KitError(f"golden/{path} is used by no check. Files that are: {', '.join(sorted(known))}")
    for path in sorted(known - found):
        raise KitError(f"golden/{path} is missing: {REMEDY}")


def load_file(path: Path, family: Family) -> GoldenFile:
    """Read and verify one file.

    Raises:
        KitError: naming file, line, field and what is legal there; or an edited file, or one made for other inputs.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    where = f"golden/{path.parent.name}/{path.name}"
    if not lines:
        raise KitError(f"{where} is empty: {REMEDY}")
    provenance = _read_line(lines[0], f"{where}:1", PROVENANCE)
    if (provenance["schema_version"], provenance["family"]) != (VERSION, path.parent.name):
        raise KitError(
            f"{where}:1: schema_version {provenance['schema_version']} of family {provenance['family']!r}; "
            f"this kit reads {VERSION} of {path.parent.name!r}"
        )
    cases = [_read_line(line, f"{where}:{number}", family.fields) for number, line in enumerate(lines[1:], 2)]
    _require_unedited(where, provenance, lines[1:])
    if provenance["tolerance"] != family.tolerance_texts():
        raise KitError(f"{where}:1: field 'tolerance' is not what this kit holds the numbers to: {REMEDY}")
    ids = [case["id"] for case in cases]
    for number, name in enumerate(ids, 2):
        if ids.index(name) != number - 2:
            raise KitError(f"{where}:{number}: field 'id': {name!r} is taken by line {ids.index(name) + 2}")
    for name, digest in family.inputs().items():
        if provenance["inputs"].get(name) != digest:
            raise KitError(f"{where} was made for another {name} than this kit ships: {REMEDY}")
    return GoldenFile(path, provenance, cases)


def _read_line(line: str, where: str, fields: dict[str, str]) -> Case:
    try:
        data = json.loads(line)
    except json.JSONDecodeError as error:
        raise KitError(f"{where}: no JSON at column {error.colno} ({error.msg}); one object a line") from error
    if not isinstance(data, dict):
        raise KitError(f"{where}: {type(data).__name__}, where an object with {', '.join(fields)} belongs")
    check_fields(data, fields, where)
    return data


def _require_unedited(where: str, provenance: Case, lines: list[str]) -> None:
    if provenance["cases"] != len(lines):
        raise KitError(f"{where} has {len(lines)} cases, its provenance counts {provenance['cases']}: {REMEDY}")
    if provenance["sha256"] != digest_of(lines):
        raise KitError(f"{where} was edited: its cases do not have the digest of its provenance; {REMEDY}")


def digest_of(lines: list[str]) -> str:
    """The SHA-256 of case lines, each with its line feed."""
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()


def spell(data: Case) -> str:
    """One line of a golden file."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"))
