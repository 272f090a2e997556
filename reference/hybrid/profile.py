"""What profiling a module finds: each operator's times and bytes, the tensors between them, what moving one costs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from gaugeblock.reference.hybrid.placement import (
    PLACES,
    PlacementError,
    read_record,
    refuse_other_version,
    write_record,
)

INPUT = "<input>"
OUTPUT = "<output>"
"""Both ends of a pass: what the caller passes in, and what it gets back. They are on the host."""
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Timing:
    """Seconds of several runs: the median, the quartiles as their spread, and the fastest one."""

    median: float
    low: float
    high: float
    least: float
    runs: int

    @classmethod
    def of(cls, seconds: list[float]) -> Timing:
        """Summarise runs."""
        if len(seconds) < 2:
            return cls(seconds[0], seconds[0], seconds[0], seconds[0], len(seconds))
        low, _, high = quantiles(seconds, n=4, method="inclusive")
        return cls(median(seconds), low, high, min(seconds), len(seconds))


@dataclass(frozen=True)
class Call:
    """One call of an operator in a pass: the shapes it got and gave, their bytes, and its times by place."""

    shapes_in: tuple[tuple[int, ...], ...]
    shapes_out: tuple[tuple[int, ...], ...]
    bytes_in: int
    bytes_out: int
    seconds: Mapping[str, Timing]


@dataclass(frozen=True)
class Operator:
    """A leaf module, or (``own``) what a container computes itself between its children, such as attention.

    ``heavy`` ones compute matrix products, attention among them.
    ``weights`` maps the tensors it keeps (parameters, buffers, caches) to bytes; two operators with one name in it
    share that tensor.
    """

    name: str
    kind: str
    own: bool
    heavy: bool
    weights: Mapping[str, int]
    calls: tuple[Call, ...]

    def seconds(self, place: str) -> float:
        """Return the median time of its calls in one pass, as timed one by one."""
        return sum(call.seconds[place].median for call in self.calls)


@dataclass(frozen=True)
class Edge:
    """``consumer`` reads ``bytes`` of a tensor that ``producer`` made. ``tensor`` tells those of one producer apart."""

    producer: str
    consumer: str
    bytes: int
    tensor: int


@dataclass(frozen=True)
class Link:
    """The cost of a copy in one direction: ``latency`` seconds and ``bandwidth`` bytes a second."""

    latency: float
    bandwidth: float

    def seconds(self, size: int) -> float:
        """Return the time that a copy of ``size`` bytes takes."""
        return self.latency + size / self.bandwidth


@dataclass(frozen=True)
class Profile:
    """A module's profile for one set of inputs.

    ``devices`` maps places to torch devices; ``pretend`` says that both are the same processor. ``whole`` has the
    times of passes without any instrument by place; ``overhead`` what a pass takes outside of the operators (Python of
    containers that compute nothing). ``to_device`` and ``to_host`` are the links. ``activation_bytes`` is the most that
    is alive of inputs and results at any moment of a pass.
    """

    devices: Mapping[str, str]
    operators: tuple[Operator, ...]
    edges: tuple[Edge, ...]
    whole: Mapping[str, Timing]
    overhead: Mapping[str, float]
    to_device: Link
    to_host: Link
    activation_bytes: int
    model: str = field(default="")

    @cached_property
    def by_name(self) -> dict[str, Operator]:
        """The operators by name, in the order of their first calls."""
        return {operator.name: operator for operator in self.operators}

    @property
    def pretend(self) -> bool:
        """Whether one processor plays both parts."""
        return len(set(self.devices.values())) < len(self.devices)

    def timed(self, place: str) -> float:
        """Return the sum of all operators' times and the overhead at a place, as timed one by one."""
        return sum(operator.seconds(place) for operator in self.operators) + self.overhead[place]

    def share(self, place: str) -> float:
        """Return the time of the fastest pass without instruments over the sum of what was timed one by one.

        Clocks and synchronisation around each call make the parts longer than the whole; this takes that out again. The
        fastest, since whatever else a machine does only adds, and interrupts a whole pass more often than one part.
        """
        return self._shares[place]

    @cached_property
    def _shares(self) -> dict[str, float]:
        timed = {place: self.timed(place) for place in PLACES}
        return {place: self.whole[place].least / timed[place] if timed[place] > 0 else 1.0 for place in PLACES}

    def cost(self, name: str, place: str) -> float:
        """Return an operator's part of a pass without instruments, in seconds: all of them and the overhead make it."""
        return self.by_name[name].seconds(place) * self.share(place)

    def to_json(self) -> dict[str, Any]:
        """Return the profile as JSON values, with its ``schema_version``."""
        return {"schema_version": SCHEMA_VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Profile:
        """Read what :meth:`to_json` returned.

        Raises:
            PlacementError: another version, or a field is missing.
        """
        refuse_other_version(record, "profile", SCHEMA_VERSION)
        try:
            return cls(
                devices=record["devices"],
                operators=tuple(_operator(value) for value in record["operators"]),
                edges=tuple(Edge(**value) for value in record["edges"]),
                whole=_timings(record["whole"]),
                overhead=record["overhead"],
                to_device=Link(**record["to_device"]),
                to_host=Link(**record["to_host"]),
                activation_bytes=record["activation_bytes"],
                model=record["model"],
            )
        except (KeyError, TypeError) as problem:
            raise PlacementError(f"a profile with fields missing or unknown ({problem}): profile again") from None

    def save(self, path: Path) -> None:
        """Write the profile as a JSON file."""
        write_record(path, self.to_json())

    @classmethod
    def load(cls, path: Path) -> Profile:
        """Read a profile's JSON file.

        Raises:
            PlacementError: there is none, or it does not hold a profile.
        """
        return cls.from_json(read_record(path, "profile"))


def _operator(record: Mapping[str, Any]) -> Operator:
    return Operator(**{**record, "calls": tuple(_call(call) for call in record["calls"])})


def _call(record: Mapping[str, Any]) -> Call:
    shapes = {name: _shapes(record[name]) for name in ("shapes_in", "shapes_out")}
    return Call(**{**record, **shapes, "seconds": _timings(record["seconds"])})


def _shapes(record: Iterable[Iterable[int]]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(shape) for shape in record)


def _timings(record: Mapping[str, Any]) -> dict[str, Timing]:
    return {place: Timing(**record[place]) for place in PLACES}
