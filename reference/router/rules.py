"""What the rules decide about a request before a worker is picked."""

from __future__ import annotations

from typing import NamedTuple

from gaugeblock.reference.router.spec import TIERS

BANDS = ("high", "normal", "low")
"""The priorities of a router that names no others, the most urgent first."""


class Route(NamedTuple):
    """Where a request may go and how urgent it is. The defaults are those of a router without rules.

    ``pool`` None: any pool that serves the model. ``policy`` None: the router's own. ``band``, ``tenant`` and
    ``deadline`` (seconds from the arrival) None: what the request's headers say. ``tiers`` are tried in this order: a
    later one serves only what no worker of an earlier one may take. ``rule`` and ``variant`` name what decided;
    ``shadow`` is the pool that gets a copy.
    """

    pool: str | None = None
    policy: str | None = None
    band: str | None = None
    tenant: str | None = None
    deadline: float | None = None
    tiers: tuple[str, ...] = TIERS
    rule: str | None = None
    variant: str | None = None
    shadow: str | None = None


DEFAULT_ROUTE = Route()
