"""What an operator declares of one worker: where it is, what it is for, and how much it may get."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields

from gaugeblock.reference.router.urls import worker_id

ROLES = ("regular", "prefill", "decode")
TIERS = ("gpu", "cpu")
"""In the order of preference: a CPU worker serves what no GPU worker may take."""
DEFAULT_POOL = "default"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")


@dataclass(frozen=True)
class WorkerSpec:
    """One worker. ``url`` is normalised and is its id.

    ``models`` are the names it serves; without them the worker is asked. ``weight`` is its share beside the others of
    its pool. ``max_in_flight`` is the most requests that it gets at a time, None for no limit. ``bootstrap_port`` is
    where a prefill worker hands its KV over.

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

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", worker_id(self.url))
        for name, legal in (("role", ROLES), ("tier", TIERS)):
            if getattr(self, name) not in legal:
                raise ValueError(f"{name} must be one of {', '.join(legal)}; got {getattr(self, name)!r}")
        check_name("pool", self.pool)
        object.__setattr__(self, "models", _names("models", self.models))
        if type(self.weight) not in (int, float) or not math.isfinite(self.weight) or self.weight <= 0:
            raise ValueError(f"weight must be a number > 0; got {self.weight!r}")
        _check_whole("max_in_flight", self.max_in_flight, None)
        _check_whole("bootstrap_port", self.bootstrap_port, 65535)

    @classmethod
    def of(cls, data: Mapping[str, object]) -> WorkerSpec:
        """Return the spec of a JSON or TOML table.

        Raises:
            ValueError: an unknown field, no URL, or a value that is not legal.
        """
        legal = [field.name for field in fields(cls)]
        unknown = [name for name in data if name not in legal]
        if unknown:
            raise ValueError(f"a worker has no field {unknown[0]!r}; its fields are {', '.join(legal)}")
        if "url" not in data:
            raise ValueError('a worker needs a url, as in {"url": "http://HOST:PORT"}')
        return cls(**data)  # type: ignore[arg-type] # __post_init__ checks what came from outside

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


def check_name(what: str, name: object) -> None:
    """Raise ``ValueError`` unless ``name`` may stand in a header and be a metric's label."""
    if not isinstance(name, str) or not _NAME.match(name):
        raise ValueError(f"{what} must be 1 to 64 letters, digits, dots, dashes or underscores; got {name!r}")


def _names(what: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(name, str) and name for name in value):
        raise ValueError(f"{what} must be a list of names, got {value!r}")
    return tuple(value)


def _check_whole(name: str, value: object, high: int | None) -> None:
    if value is None or (type(value) is int and value >= 1 and (high is None or value <= high)):
        return
    raise ValueError(f"{name} must be a whole number >= 1{f' and <= {high}' if high else ''} or null; got {value!r}")
