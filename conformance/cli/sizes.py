"""Sizes in bytes as options: ``2GiB``, ``512 MiB``, ``1000000``."""

from __future__ import annotations

import re
from typing import Any

import click

UNITS = {"": 1, "B": 1, "kB": 10**3, "KiB": 2**10, "MB": 10**6, "MiB": 2**20, "GB": 10**9, "GiB": 2**30}
MOST = 2**63  # bytes
SHOWN = 40  # characters of a long value in a message


class ByteSize(click.ParamType):  # type: ignore[type-arg] # generic in later versions of click alone
    """A positive number with a unit of bytes; without one it counts bytes."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the bytes of ``"2GiB"``."""
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", str(value).strip())
        units = {unit.lower(): size for unit, size in UNITS.items()}
        if found is None or found[2].lower() not in units:
            legal = ", ".join(filter(None, UNITS))
            self.fail(f"{shortened(str(value))!r} is no size: write a number and one of {legal}", param, ctx)
        size = float(found[1]) * units[found[2].lower()]
        if size < 1:
            self.fail(f"{value!r} is less than one byte", param, ctx)
        if size >= MOST:
            self.fail(f"{shortened(str(value))!r} is more than any device holds", param, ctx)
        return int(size)


def shortened(text: str) -> str:
    """Return a value that the user gave, cut where it is long."""
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"


BYTES = ByteSize()
