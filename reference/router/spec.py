"""What an operator declares of one worker: where it is, what it is for, and how much it may get."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

from gaugeblock.reference.router.quality import QUALITIES
from gaugeblock.reference.router.tables import (
    check_choice,
    check_name,
    check_number,
    check_whole,
    names_of,
    record_fields,
)
from gaugeblock.reference.router.urls import worker_id

ROLES = ("regular", "prefill", "decode")
TIERS = ("gpu", "cpu")
"""In the order of preference, unless a rule or a band has another: a CPU worker serves what no GPU worker may take."""
DEFAULT_POOL = "default"


def check_tiers(field: str, value: object) -> tuple[str, ...]:
    """Return an order of tiers.

    Raises:
        ValueError: it is no list of different tiers.
    """
    legal = isinstance(value, list | tuple) and value and all(tier in TIERS for tier in value)
    if not legal or len(set(value)) < len(value):  # type: ignore[arg-type, call-overload] # a list, as just asked
        raise ValueError(f"{field} must be a list of {', '.join(TIERS)}, the preferred one first; got {value!r}")
    return tuple(value)  # type: ignore[arg-type]


@dataclass(frozen=True)
class WorkerSpec:
    """One worker. ``url`` is normalised and is its id.

    ``models`` are the names it serves; without them the worker is asked. ``weight`` is its share beside the others of
    its pool. ``max_in_flight`` is the most requests that it gets at a time, None for no limit. ``bootstrap_port`` is
    where a prefill worker hands its KV over. ``quality`` is what it computes in, for requests that ask for a floor.

    Raises:
        ValueError: naming the field, the value and what is legal.
    """

    url: str
    role: str = "regular"
    tier: str = "gpu"
    pool: str = DEFAULT_POOL
    models: tuple[str, ...] = ()
    weight: float = 1.0
    max_in_flight: int | None = None
    bootstrap_port: int | None = None
    quality: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", worker_id(self.url))
        check_choice("role", self.role, ROLES, optional=False)
        check_choice("tier", self.tier, TIERS, optional=False)
        check_choice("quality", self.quality, QUALITIES)
        check_name("pool", self.pool)
        object.__setattr__(self, "models", names_of("models", self.models))
        if self.weight is None:
            raise ValueError("weight must be a number > 0; got None")
        check_number("weight", self.weight, 0, above=True)
        check_whole("max_in_flight", self.max_in_flight, 1)
        check_whole("bootstrap_port", self.bootstrap_port, 1, 65535)

    @classmethod
    def of(cls, data: object) -> WorkerSpec:
        """Return the spec of a JSON or TOML table.

        Raises:
            ValueError: an unknown field, no URL, or a value that is not legal.
        """
        return data if isinstance(data, WorkerSpec) else cls(**record_fields(cls, "a worker", data))  # type: ignore[arg-type] # checked on the way in

    def describe(self) -> dict[str, object]:
        """Return the fields beside ``url`` as JSON."""
        return {name: value for name, value in asdict(self).items() if name not in ("url", "models")}


def check_pools(specs: Iterable[WorkerSpec]) -> None:
    """Raise ``ValueError`` if a pool holds regular workers beside prefill or decode workers: which would serve?"""
    kinds: dict[str, tuple[str, bool]] = {}
    for spec in specs:
        url, alone = kinds.setdefault(spec.pool, (spec.url, spec.role == "regular"))
        if alone != (spec.role == "regular"):
            regular, other = (url, spec.url) if alone else (spec.url, url)
            raise ValueError(
                f"the pool {spec.pool!r} has the regular worker {regular} beside the prefill or decode worker {other}; "
                "give them pools of their own"
            )
