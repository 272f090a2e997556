"""Experiments: a share of the requests is served otherwise, or a copy of them is sent elsewhere."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from gaugeblock.reference.router.match import Match
from gaugeblock.reference.router.policies import policy_names
from gaugeblock.reference.router.spec import TIERS
from gaugeblock.reference.router.tables import check_choice, check_name, check_number, record_fields

UNITS = ("session", "tenant", "request")


@dataclass(frozen=True)
class Variant:
    """One treatment and the ``percent`` of the requests that get it."""

    name: str
    percent: float
    pool: str | None = None
    policy: str | None = None
    tier: str | None = None

    def __post_init__(self) -> None:
        check_name("name", self.name)
        if self.percent is None:
            raise ValueError("percent must be a number >= 0 and <= 100; got None")
        check_number("percent", self.percent, 0, 100)
        if self.pool is not None:
            check_name("pool", self.pool)
        check_choice("policy", self.policy, tuple(policy_names()))
        check_choice("tier", self.tier, TIERS)

    @classmethod
    def of(cls, data: object) -> Variant:
        """Return the variant of a table; raises ValueError."""
        return data if isinstance(data, Variant) else cls(**record_fields(cls, "a variant", data))  # type: ignore[arg-type] # checked on the way in


@dataclass(frozen=True)
class Experiment:
    """See :mod:`rules` for what the fields mean.

    Raises:
        ValueError: naming the field, the value and what is legal.
    """

    name: str
    match: Match = field(default_factory=Match)
    by: str = "session"
    variants: tuple[Variant, ...] = ()
    shadow: str | None = None
    percent: float | None = None

    def __post_init__(self) -> None:
        check_name("name", self.name)
        object.__setattr__(self, "match", Match.of(self.match))
        check_choice("by", self.by, UNITS, optional=False)
        if not isinstance(self.variants, list | tuple):
            raise ValueError(f"variants must be a list of tables, got {self.variants!r}")
        object.__setattr__(self, "variants", tuple(map(Variant.of, self.variants)))
        if bool(self.variants) == (self.shadow is not None):
            raise ValueError("an experiment needs either variants or a shadow")
        if self.shadow is not None:
            check_name("shadow", self.shadow)
        elif self.percent is not None:
            raise ValueError("percent belongs to a shadow; each variant has its own")
        check_number("percent", self.percent, 0, 100)
        names = [variant.name for variant in self.variants]
        if len(set(names)) < len(names):
            raise ValueError(f"variants must have different names; got {', '.join(names)}")
        if sum(variant.percent for variant in self.variants) > 100:
            raise ValueError("variants must not have more than 100 percent in all")

    @classmethod
    def of(cls, data: object) -> Experiment:
        """Return the experiment of a table; raises ValueError."""
        return data if isinstance(data, Experiment) else cls(**record_fields(cls, "an experiment", data))  # type: ignore[arg-type] # checked on the way in

    def draw(self, unit: str) -> Variant | None:
        """Return the variant of a unit, always the same; None for the share that has none."""
        at = place(self.name, unit)
        for variant in self.variants:
            at -= variant.percent
            if at < 0:
                return variant
        return None

    def shadows(self, unit: str) -> bool:
        """Whether a copy of this unit's requests is sent to the shadow."""
        return self.shadow is not None and (self.percent is None or place(self.name, unit) < self.percent)


def place(experiment: str, unit: str) -> float:
    """Return where a unit stands, from 0 to below 100: evenly spread, and independent from experiment to experiment."""
    digest = hashlib.blake2b(f"{experiment}\0{unit}".encode(errors="replace"), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) * (100 / (1 << 53))  # 53 bits: what a float holds exactly
