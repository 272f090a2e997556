"""Checks of configuration that comes from outside; each message names the field, the value and what is legal."""

from __future__ import annotations

import math


def whole(name: str, value: object, low: int, *, optional: bool = False) -> None:
    """Raise ``ValueError`` unless the value is a whole number of at least ``low``."""
    if (value is None and optional) or (type(value) is int and value >= low):
        return
    raise ValueError(f"{name} must be a whole number >= {low}{' or null' if optional else ''}; got {value!r}")


def positive(name: str, value: object, *, optional: bool = False) -> None:
    """Raise ``ValueError`` unless the value is a finite number above 0."""
    if value is None and optional:
        return
    if type(value) not in (int, float) or not math.isfinite(value) or value <= 0:  # type: ignore[arg-type, operator] # the first test says that it is a number
        raise ValueError(f"{name} must be a number > 0{' or null for no limit' if optional else ''}; got {value!r}")


def one_of(name: str, value: object, legal: tuple[str, ...]) -> None:
    """Raise ``ValueError`` unless the value is one of ``legal``."""
    if value not in legal:
        raise ValueError(f"{name} must be one of {', '.join(legal)}; got {value!r}")
