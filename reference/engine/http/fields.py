"""Strict reading of a JSON body: every refusal names the field, what is legal and what came."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any, NoReturn

from starlette.requests import Request

from gaugeblock.reference.engine.http.errors import ApiError, bad

EXACT_FLOAT = 2**53  # up to here a float that holds an integer holds the one that was meant
SHOWN = 80  # characters of a bad value that an error repeats


async def read_object(request: Request) -> Fields:
    """The body as an object of fields.

    Raises:
        ApiError: 400, it is no JSON object.
    """
    return Fields(parse_object(await request.body()))


def parse_object(raw: bytes) -> dict[str, Any]:
    """Parse a JSON object; NaN and Infinity, which are no JSON, are refused."""
    try:
        data = json.loads(raw, parse_constant=_refuse_constant, parse_float=_finite_float)
    except RecursionError:
        raise bad(None, "the body is nested too deeply") from None
    except ValueError as error:  # bad JSON, bad UTF-8, an integer of thousands of digits
        raise bad(None, f"the body is not valid JSON: {error}") from None
    if not isinstance(data, dict):
        raise bad(None, f"the body must be a JSON object, got {shown(data)}")
    return data


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _finite_float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:SHOWN]} is too large for a number")
    return number


def shown(value: Any) -> str:
    """``value`` as JSON, shortened."""
    try:
        text = json.dumps(value, ensure_ascii=True)
    except (ValueError, RecursionError):
        text = f"a {type(value).__name__} too large to show"
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"


class Fields:
    """The fields of one JSON object; null counts as absent. ``path`` leads from the body to it."""

    def __init__(self, data: dict[str, Any], path: str = "") -> None:
        self.data, self.path = data, path

    def __contains__(self, name: str) -> bool:
        return self.data.get(name) is not None

    def __iter__(self) -> Iterator[str]:
        return (name for name, value in self.data.items() if value is not None)

    def at(self, name: str) -> str:
        """The path of a field."""
        return f"{self.path}.{name}" if self.path else name

    def get(self, name: str) -> Any:
        """The raw value, None when absent."""
        return self.data.get(name)

    def refuse(self, name: str, legal: str) -> ApiError:
        """A 400 that says what ``name`` must be."""
        return bad(self.at(name), f"{self.at(name)} must be {legal}, got {shown(self.get(name))}")

    def maybe_text(self, name: str) -> str | None:
        """A string of valid Unicode, or None."""
        value = self.get(name)
        if value is None:
            return None
        if not isinstance(value, str):
            raise self.refuse(name, "a string")
        return well_formed(value, self.at(name))

    def flag(self, name: str, default: bool = False) -> bool:
        """A boolean."""
        value = self.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.refuse(name, "true or false")
        return value

    def maybe_integer(self, name: str, low: int, high: int | None = None) -> int | None:
        """An integer in [low, high], or None."""
        value = self.get(name)
        if value is None:
            return None
        number = as_integer(value)
        if number is None or number < low or (high is not None and number > high):
            raise self.refuse(name, f"an integer >= {low}" if high is None else f"an integer in [{low}, {high}]")
        return number

    def integer(self, name: str, default: int, low: int, high: int | None = None) -> int:
        """An integer in [low, high]."""
        value = self.maybe_integer(name, low, high)
        return default if value is None else value

    def number(self, name: str, default: float, low: float, high: float, *, above: bool = False) -> float:
        """A finite number in [low, high], in (low, high] with ``above``."""
        value = self.get(name)
        if value is None:
            return default
        number = as_number(value)
        if number is None or not low <= number <= high or (above and number == low):
            raise self.refuse(name, f"a number in {'(' if above else '['}{low:g}, {high:g}]")
        return number

    def maybe_object(self, name: str) -> Fields | None:
        """An object of fields, or None."""
        value = self.get(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.refuse(name, "an object")
        return Fields(value, self.at(name))


def as_integer(value: Any) -> int | None:
    """``value`` as an integer (5.0 counts: JSON has one kind of number), None when it is none."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer() and abs(value) <= EXACT_FLOAT:
        return int(value)
    return None


def as_number(value: Any) -> float | None:
    """``value`` as a finite float, None when it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def well_formed(text: str, path: str) -> str:
    """``text`` if it can be written as UTF-8; a lone surrogate, which JSON can spell, cannot."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise bad(path, f"{path} holds a lone surrogate at character {error.start}: it is no valid Unicode") from None
    return text
