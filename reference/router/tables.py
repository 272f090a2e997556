"""Reading what operators wrote: a TOML or JSON table becomes a checked record, or an error that says what is wrong."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, fields
from typing import TypeVar

R = TypeVar("R")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")


class TableError(ValueError):
    """A value is not legal: in which ``table`` of a list (``number`` from 0), and the ``message`` that says why."""

    def __init__(self, table: str, number: int, name: str, message: str) -> None:
        named = f" ({name!r})" if name else ""
        super().__init__(f"{table} {number + 1}{named}: {message}")
        self.table, self.number, self.message = table, number, message


@contextmanager
def inside(table: str, number: int, data: object) -> Iterator[None]:
    """Say of each ``ValueError`` in which table of a list it was found.

    Raises:
        TableError: instead of any other ValueError.
    """
    try:
        yield
    except TableError:
        raise
    except ValueError as error:
        name = data.get("name", data.get("url", "")) if isinstance(data, Mapping) else getattr(data, "name", "")
        raise TableError(table, number, str(name), str(error)) from None


def record_fields(cls: type, what: str, data: object) -> dict[str, object]:
    """Return the table ``data`` if its names are fields of the dataclass ``cls`` and all without a default are there.

    Raises:
        ValueError: naming the field and the legal ones.
    """
    if not isinstance(data, Mapping):
        raise ValueError(f"{what} must be a table, got {data!r}")
    legal = fields(cls)
    names = [field.name for field in legal]
    for name in data:
        if name not in names:
            raise ValueError(f"{what} has no field {name!r}; its fields are {', '.join(names)}")
    for field in legal:
        if field.name not in data and field.default is MISSING and field.default_factory is MISSING:
            raise ValueError(f"{what} needs a {field.name}")
    return dict(data)


def records(what: str, of: Callable[[object], R], tables: object) -> tuple[R, ...]:
    """Return the records of a list of tables.

    Raises:
        ValueError: it is no list; a :class:`TableError` for what is wrong with one of them.
    """
    if not isinstance(tables, list | tuple):
        raise ValueError(f"{what}s must be a list of tables, got {tables!r}")
    made = []
    for number, table in enumerate(tables):
        with inside(what, number, table):
            made.append(of(table))
    return tuple(made)


def check_name(field: str, value: object) -> None:
    """Raise ``ValueError`` unless ``value`` may stand in a header and be a metric's label."""
    if not isinstance(value, str) or not _NAME.match(value):
        raise ValueError(f"{field} must be 1 to 64 letters, digits, dots, dashes or underscores; got {value!r}")


def check_choice(field: str, value: object, legal: tuple[str, ...], *, optional: bool = True) -> None:
    """Raise ``ValueError`` unless ``value`` is one of ``legal``, or None where it may be."""
    if value not in legal and not (optional and value is None):
        raise ValueError(f"{field} must be one of {', '.join(legal)}; got {value!r}")


def check_number(field: str, value: object, low: float, high: float = math.inf, *, above: bool = False) -> None:
    """Raise ``ValueError`` unless ``value`` is a number from ``low`` (``above``: but not it) to ``high``, or None."""
    if value is None:
        return
    good = type(value) in (int, float) and math.isfinite(value) and low <= value <= high  # type: ignore[arg-type, operator] # a number, as just asked
    if not good or (above and value == low):
        legal = f"{'>' if above else '>='} {low:g}" + (f" and <= {high:g}" if math.isfinite(high) else "")
        raise ValueError(f"{field} must be a number {legal}; got {value!r}")


def check_whole(field: str, value: object, low: int, high: int | None = None) -> None:
    """Raise ``ValueError`` unless ``value`` is a whole number from ``low`` to ``high``, or None."""
    if value is None or (type(value) is int and value >= low and (high is None or value <= high)):
        return
    raise ValueError(
        f"{field} must be a whole number >= {low}{f' and <= {high}' if high is not None else ''} or null; got {value!r}"
    )


def names_of(field: str, value: object) -> tuple[str, ...]:
    """Return a list of names, or one name, as a tuple.

    Raises:
        ValueError: anything else.
    """
    listed = (value,) if isinstance(value, str) else value
    if not isinstance(listed, list | tuple) or not all(isinstance(name, str) and name for name in listed):
        raise ValueError(f"{field} must be a name or a list of names, got {value!r}")
    return tuple(listed)
