"""The configuration file, in TOML: read whole or not at all, and every error says on which line it is.

The format is in the docstring of :mod:`gaugeblock.reference.router.rules`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from gaugeblock.reference.router.config import RouterConfig
from gaugeblock.reference.router.experiments import Experiment
from gaugeblock.reference.router.rules import BANDS
from gaugeblock.reference.router.ruleset import Rule, check_names
from gaugeblock.reference.router.tables import TableError, check_whole, records

LISTS = ("workers", "rules", "experiments")
SECTIONS = ("router", *LISTS)
_CULPRIT = re.compile(r"has no field '([^']+)'|^(?:the header )?([\w-]+) (?:must|belongs)")


def read_file(path: str) -> str:
    """Return the text of a file.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read {path}: {error}") from None


def load_config(path: str, **outrank: Any) -> tuple[RouterConfig, str | None, int | None]:
    """Return the configuration of a file, and host and port if it names them; ``outrank`` are fields that outrank it.

    Raises:
        ValueError: naming file, line, field and what is legal.
    """
    text = read_file(path)
    data = _parse(text, path, SECTIONS)
    try:
        router, host, port = _router(data.get("router", {}))
        lists = {name: data[name] for name in LISTS if name in data}
        return RouterConfig(**{**router, **lists, "config_file": path, **outrank}), host, port
    except ValueError as error:
        raise _located(error, text, path) from None


def parse_rules(
    text: str, source: str, pools: Collection[str], bands: tuple[str, ...] = BANDS
) -> tuple[tuple[Rule, ...], tuple[Experiment, ...]]:
    """Return the rules and experiments of a file that has nothing else.

    Raises:
        ValueError: naming source, line, field and what is legal.
    """
    data = _parse(text, source, LISTS[1:])
    try:
        rules = records("rule", Rule.of, data.get("rules", []))
        experiments = records("experiment", Experiment.of, data.get("experiments", []))
        check_names(rules, experiments, pools, bands)
    except ValueError as error:
        raise _located(error, text, source) from None
    return rules, experiments


def _parse(text: str, source: str, legal: Sequence[str]) -> dict[str, Any]:
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{source} is not TOML: {error}") from None
    for name in data:
        if name not in legal:
            raise ValueError(f"{source}: there is no section {name!r}; the sections are {', '.join(legal)}")
    return data


def _router(section: object) -> tuple[dict[str, Any], str | None, int | None]:
    """Return the fields of ``[router]``, host and port apart. TOML has no null: ``"none"`` stands for it."""
    if not isinstance(section, dict):
        raise ValueError(f"router must be a table, [router], got {section!r}")
    router = {name: None if value == "none" else value for name, value in section.items()}
    host, port = router.pop("host", None), router.pop("port", None)
    if host is not None and not (isinstance(host, str) and host):
        raise ValueError(f"host must be a name or an address, got {host!r}")
    check_whole("port", port, 0, 65535)
    legal = [field.name for field in fields(RouterConfig) if field.name not in (*LISTS, "config_file")]
    for name in router:
        if name not in legal:
            raise ValueError(f"[router] has no field {name!r}; its fields are host, port, {', '.join(legal)}")
    return router, host, port


def _located(error: ValueError, text: str, source: str) -> ValueError:
    """Return an error with the source and the line where the field that it names stands."""
    table = f"{error.table}s" if isinstance(error, TableError) else "router"
    number = error.number if isinstance(error, TableError) else 0
    first, last = _section(text.splitlines(), table, number)
    message = error.message if isinstance(error, TableError) else str(error)
    found = _CULPRIT.search(message)
    name = next((group for group in found.groups() if group), None) if found else None
    line = first
    if name is not None:
        key = re.compile(rf"(?:^|[\s.{{,\[\"]){re.escape(name)}\"?\s*=")
        lines = text.splitlines()
        line = next((number for number in range(first, last) if key.search(lines[number])), first)
    return ValueError(f"{source}, line {line + 1}: {error}")


def _section(lines: Sequence[str], table: str, number: int) -> tuple[int, int]:
    """Return where a section begins and ends, line numbers from 0; the whole file if it is written otherwise."""
    heads = [at for at, line in enumerate(lines) if line.lstrip().startswith("[")]
    named = [at for at in heads if re.match(rf"\s*\[{{1,2}}\s*{table}\s*\]", lines[at])]
    if number >= len(named):
        return 0, len(lines)
    first = named[number]
    others = [at for at in heads if at > first and not re.match(rf"\s*\[+\s*{table}\.", lines[at])]
    return first, min(others, default=len(lines))
