"""A placement: the device on which each operator of a model runs, and what the planner expects of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

HOST = "host"
DEVICE = "device"
PLACES = (HOST, DEVICE)
SCHEMA_VERSION = 1


class PlacementError(ValueError):
    """A placement that cannot be run. The message names the operator or field and lists the legal names."""


@dataclass(frozen=True)
class Placement:
    """Where each operator runs.

    ``devices`` maps the operator's name (that of its submodule, ``model.layers.0.mlp.down_proj``) to ``"host"`` or
    ``"device"``. ``predicted_seconds`` is the modelled latency of one forward pass, ``device_bytes`` what the device
    holds for it at most, ``transfers`` the number of tensors that go over the bus in one pass. A better placement can
    be faster by ``gap_seconds`` at most; 0 says that there is none.
    """

    strategy: str
    devices: Mapping[str, str]
    predicted_seconds: float
    device_bytes: int
    transfers: int
    gap_seconds: float = 0.0

    def __post_init__(self) -> None:
        """Refuse places that do not exist.

        Raises:
            PlacementError: naming the operator.
        """
        for name, place in self.devices.items():
            if place not in PLACES:
                raise PlacementError(f"operator {name!r} is placed on {place!r}; places are: {', '.join(PLACES)}")

    @property
    def on_device(self) -> tuple[str, ...]:
        """The operators on the device, in their order."""
        return tuple(name for name, place in self.devices.items() if place == DEVICE)

    def refuse_other_operators(self, operators: Iterable[str]) -> None:
        """Check that this places exactly the operators of a model.

        Raises:
            PlacementError: naming what is not placed, or placed and not in the model.
        """
        wanted = dict.fromkeys(operators)
        missing = [name for name in wanted if name not in self.devices]
        foreign = [name for name in self.devices if name not in wanted]
        problems = []
        if missing:
            problems.append(f"operators without a place: {_few(missing)}")
        if foreign:
            problems.append(f"no such operators: {_few(foreign)}; the model has: {_few(list(wanted))}")
        if problems:
            raise PlacementError("; ".join(problems))

    def to_json(self) -> dict[str, Any]:
        """Return the placement as JSON values, with its ``schema_version``."""
        return {"schema_version": SCHEMA_VERSION, **asdict(self), "devices": dict(self.devices)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Placement:
        """Read what :meth:`to_json` returned.

        Raises:
            PlacementError: another version, or a field is missing.
        """
        refuse_other_version(record, "placement", SCHEMA_VERSION)
        try:
            fields = {name: record[name] for name in cls.__dataclass_fields__}
        except KeyError as missing:
            raise PlacementError(f"a placement without {missing.args[0]!r}: plan again") from None
        return cls(**fields)

    def save(self, path: Path) -> None:
        """Write the placement as a JSON file."""
        write_record(path, self.to_json())

    @classmethod
    def load(cls, path: Path) -> Placement:
        """Read a placement's JSON file.

        Raises:
            PlacementError: there is none, or it does not hold a placement.
        """
        return cls.from_json(read_record(path, "placement"))


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write a JSON file that :func:`read_record` reads."""
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def refuse_other_version(record: Mapping[str, Any], what: str, version: int) -> None:
    """Raise ``PlacementError`` if a record is not of the version that is read here."""
    found = record.get("schema_version")
    if found != version:
        raise PlacementError(
            f"a {what} of schema_version {found!r}; this reads {version}: run `gaugeblock place` again"
        )


def read_record(path: Path, what: str) -> dict[str, Any]:
    """Read a JSON file that must hold an object.

    Raises:
        PlacementError: the file cannot be read, or holds something else.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise PlacementError(f"cannot read the {what} {str(path)!r}: {problem.strerror}") from None
    except ValueError:
        raise PlacementError(f"{str(path)!r} is no {what}: not JSON; write it by `gaugeblock place`") from None
    if not isinstance(record, dict):
        raise PlacementError(f"{str(path)!r} is no {what}: not a JSON object; write it by `gaugeblock place`")
    return record


def load_devices(path: Path) -> Mapping[str, str]:
    """Read which operator runs where: from a placement's file, or one that maps operators to places and no more.

    Raises:
        PlacementError: there is none, or it holds neither.
    """
    record = read_record(path, "placement")
    return record if "schema_version" not in record else Placement.from_json(record).devices


def _few(names: list[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
