"""Seconds as options."""

from __future__ import annotations

import math
from typing import Any

import click

DAY = 86_400
YEAR = 365 * DAY


class Seconds(click.FloatRange):
    """A number of seconds above 0, at most ``most``: what no clock or socket takes ends here."""

    def __init__(self, most: int) -> None:
        super().__init__(0, most, min_open=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the seconds of ``"1.5"``."""
        found: float = super().convert(value, param, ctx)
        if math.isnan(found):  # it is neither below nor above a limit
            self.fail(f"{value!r} is no number of seconds", param, ctx)
        return found


TIMEOUT = Seconds(DAY)
"""Of one request: sockets count milliseconds and end at 24 days."""
INTERVAL = Seconds(YEAR)
