"""What profiling a module finds: each operator's times and bytes, the tensors between them, what moving one costs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import accumulate
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
SCHEMA_VERSION = 3


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
    """One call of an operator in a pass: the shapes it got and gave, their bytes, and its times by place.

    ``switched``: how many seconds longer it takes at a place right behind an operator at the other one; empty where no
    such pass was run.
    """

    shapes_in: tuple[tuple[int, ...], ...]
    shapes_out: tuple[tuple[int, ...], ...]
    bytes_in: int
    bytes_out: int
    seconds: Mapping[str, Timing]
    switched: Mapping[str, float] = field(default_factory=dict)


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
    containers that compute nothing, and what hooks do there). ``to_device`` and ``to_host`` are the links.
    ``activation_bytes`` is the most that is alive of inputs and results at any moment of a pass. ``quantization``:
    what the host's matrices were rounded to (``"int8"``), None for nothing; the device's never are.
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
    quantization: str | None = field(default=None)

    @cached_property
    def by_name(self) -> dict[str, Operator]:
        """The operators by name, in the order of their first calls."""
        return {operator.name: operator for operator in self.operators}

    @property
    def pretend(self) -> bool:
        """Whether one processor plays both parts."""
        return len(set(self.devices.values())) < len(self.devices)

    def instruments(self, place: str) -> float:
        """Return the seconds that hooks, clocks and waits add to a call, so that all calls together make the pass.

        They add as much to a short call as to a long one. Waiting also shows what a pass hides behind the next call:
        the way of a kernel to the device and back. Medians on both sides: those of the parts nearly add up to that of
        the whole, and the fastest of each part and the fastest pass do not.
        """
        return self._instruments[place]

    @cached_property
    def _instruments(self) -> dict[str, float]:
        found = {}
        for place in PLACES:
            sums = accumulate(sorted((t for times in self._timed[place].values() for t in times), reverse=True))
            # the c with Σ max(t − c, 0) = whole: the sum is at least that of the k longest, for any k
            found[place] = max(0.0, *((total - self.whole[place].median) / k for k, total in enumerate(sums, 1)))
        return found

    @cached_property
    def _timed(self) -> dict[str, dict[str, list[float]]]:
        """By place and operator: each call's time, and an even share of what passes between calls."""
        between = {place: self.overhead[place] / sum(len(o.calls) for o in self.operators) for place in PLACES}
        return {
            place: {o.name: [call.seconds[place].median + between[place] for call in o.calls] for o in self.operators}
            for place in PLACES
        }

    def cost(self, name: str, place: str) -> float:
        """Return an operator's part of a pass without instruments, in seconds: the parts of all make the pass."""
        return self._costs[place][name]

    @cached_property
    def _costs(self) -> dict[str, dict[str, float]]:
        found = {}
        for place in PLACES:
            added = self.instruments(place)
            net = {name: sum(max(t - added, 0.0) for t in times) for name, times in self._timed[place].items()}
            total = sum(net.values())
            # Passes that take longer than their parts are interrupted, each part by its time; else this is 1.
            scale = self.whole[place].median / total if total else 1.0
            found[place] = {name: seconds * scale for name, seconds in net.items()}
        return found

    def switched(self, name: str, place: str) -> float:
        """Return what a call takes longer at a place right behind an operator at the other one: threads wake up.

        The median over all operators of its kind, since a single one's is a small difference of two large times; and no
        less than 0, since a plan would switch for what is noise.
        """
        return self._switched.get((self.by_name[name].kind, place), 0.0)

    @cached_property
    def _switched(self) -> dict[tuple[str, str], float]:
        found: dict[tuple[str, str], list[float]] = {}
        for operator in self.operators:
            for call in operator.calls:
                for place, seconds in call.switched.items():
                    found.setdefault((operator.kind, place), []).append(seconds)
        return {key: max(0.0, median(seconds)) for key, seconds in found.items()}

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
                quantization=record["quantization"],
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
