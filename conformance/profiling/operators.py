"""Operators by self time, each beside the roofline of the machine it ran on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gaugeblock.conformance.profiling.ceilings import Ceilings
from gaugeblock.conformance.profiling.costs import Cost, credited
from gaugeblock.conformance.profiling.trace import OpCall, Trace


@dataclass
class Row:
    """One operator in one phase or in all.

    ``self_us``: time of its own kernels, or on a CPU its own time on the host; ``launches``: kernels, or on a CPU calls
    that computed something. ``bytes`` and ``flops`` are modelled; None where no rule knows the operator. ``floor_us``:
    the time that the measured ceilings allow for them.
    """

    name: str
    calls: int = 0
    launches: int = 0
    self_us: float = 0.0
    host_us: float = 0.0
    bytes: int | None = None
    flops: int = 0
    floor_us: float | None = None

    @property
    def roofline(self) -> float | None:
        """Achieved share of the roofline; above 1 when operands came from a cache instead of memory."""
        return self.floor_us / self.self_us if self.floor_us and self.self_us else None

    def describe(self) -> dict[str, object]:
        """Return the row as JSON."""
        return {
            "operator": self.name,
            "calls": self.calls,
            "launches": self.launches,
            "self_us": round(self.self_us, 3),
            "host_us": round(self.host_us, 3),
            "bytes": self.bytes,
            "flops": self.flops,
            "roofline": None if self.roofline is None else round(self.roofline, 4),
        }


def operators(trace: Trace, ceilings: Ceilings | None, phase: str | None = None) -> list[Row]:
    """Return the rows of a trace, the longest self time first. ``phase`` None: all of it."""
    rows: dict[str, Row] = {}
    device = trace.on_device
    for root in trace.calls:
        if phase is not None and root.phase != phase:
            continue
        _count(root.walk(), rows, device)
        for call, found in credited(root):
            _credit(rows[call.name], found, ceilings, 0 if device else 1)
    for kernel in trace.loose:
        if phase is None or kernel.phase == phase:
            row = rows.setdefault(kernel.name, Row(kernel.name))
            row.calls += 1
            row.launches += 1
            row.self_us += kernel.us
    return sorted(rows.values(), key=lambda row: -row.self_us)


def _count(calls: Iterable[OpCall], rows: dict[str, Row], device: bool) -> None:
    for call in calls:
        row = rows.setdefault(call.name, Row(call.name))
        row.calls += 1
        row.host_us += call.host_us
        row.self_us += call.device_us if device else call.host_us
        row.launches += len(call.kernels)


def _credit(row: Row, found: Cost, ceilings: Ceilings | None, launches: int) -> None:
    row.bytes = (row.bytes or 0) + found.bytes
    row.flops += found.flops
    row.launches += launches
    if ceilings is not None:
        row.floor_us = (row.floor_us or 0.0) + ceilings.floor_us(found.bytes, found.flops)


def launches(trace: Trace, phase: str) -> int:
    """Return kernels launched in a phase; on a CPU the operator calls that computed something."""
    return sum(row.launches for row in operators(trace, None, phase))


def busy_us(trace: Trace, phase: str) -> float:
    """Return the time in a phase that the device was at work; on a CPU, that operators ran."""
    return sum(row.self_us for row in operators(trace, None, phase))
