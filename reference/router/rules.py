"""What the operator's rules decide about a request before a worker is picked.

The file of ``gaugeblock serve router --config FILE`` is TOML::

    [router]                 # any field of RouterConfig, and host and port
    policy = "cache_aware"

    [[workers]]              # the fields of WorkerSpec
    url = "http://10.0.0.1:30000"
    pool = "large"

    [[rules]]                # in order: the first that matches decides
    name = "long-prompts"    # named in receipts and metrics: letters, digits, dots, dashes, underscores
    match = { min_bytes = 20000, min_tokens = 5000 }
    pool = "large"

    [[experiments]]
    name = "canary"
    variants = [{ name = "next", percent = 5, pool = "next" }]

    [[experiments]]
    name = "mirror"
    shadow = "next"
    percent = 10

``match`` holds if all that it names hold: ``model``, ``path`` and ``tenant`` (a name or a list; a name that ends in
``*`` stands for all that begin so), ``headers`` (each must have one of the given values), and the size of the prompt:
``min_bytes`` and ``max_bytes`` of a text, ``min_tokens`` and ``max_tokens`` of one that comes as token ids. A match
that bounds only one of the two kinds does not hold for the other. The tenant is the one whose API key was used, or what
``tenant_header`` says where no keys are asked for.

A rule gives any of ``pool``, ``policy``, ``band``, ``deadline`` (seconds), ``tenant``, ``floor`` (the lowest quality of
a worker that will do) and ``tier`` (only this one: a rule can ask for CPU workers, or never be served by them) or
``tiers`` (in this order of preference).

An experiment draws among the requests that it matches by the hash of its name and their ``by``: ``session`` (without
one each request by itself), ``tenant``, or ``request`` (the header ``x-request-id``, or the request id of the body, or
else by chance). Each variant gets its ``percent``; the rest is served as the rules say. The ``pool``, ``policy`` and
``tier`` of a variant outrank those of the rule. While no worker of a variant may take a request it is served as without
the experiment: a dead canary costs nothing. A ``shadow`` gets a copy of ``percent`` (default all) of what it
matches; its answers are dropped. Of the experiments with variants the first that matches counts, and of the shadows.
Only generations take part.
"""

from __future__ import annotations

from typing import NamedTuple

from gaugeblock.reference.router.spec import TIERS

BANDS = ("high", "normal", "low")
"""The priorities of a router that names no others, the most urgent first."""


class Route(NamedTuple):
    """Where a request may go and how urgent it is. The defaults are those of a router without rules.

    ``pool`` None: any pool that serves the model. ``policy`` None: the router's own. ``band``, ``tenant`` and
    ``deadline`` (seconds from the arrival) None: what the request's headers say. ``tiers`` are tried in this order: a
    later one serves only what no worker of an earlier one may take; None for what the band prefers. ``rule`` and
    ``variant`` name what decided; ``shadow`` is the pool that gets a copy. ``otherwise`` is the route while no worker
    of this one may take the request, None for no other. ``floor`` is the lowest quality that will do.
    """

    pool: str | None = None
    policy: str | None = None
    band: str | None = None
    tenant: str | None = None
    deadline: float | None = None
    tiers: tuple[str, ...] | None = None
    rule: str | None = None
    variant: str | None = None
    shadow: str | None = None
    otherwise: Route | None = None
    floor: str | None = None

    @property
    def order(self) -> tuple[str, ...]:
        """The tiers in the order in which they are tried."""
        return self.tiers or TIERS


DEFAULT_ROUTE = Route()
