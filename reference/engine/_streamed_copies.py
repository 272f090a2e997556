"""Copies between the device and a tier, ordered with the computation, timed and counted."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from gaugeblock.reference.engine._streamed_lanes import Lane, Pending, finish

Direction = Literal["out", "in"]


@dataclass
class StreamStats:
    """What a prefill moved. Seconds on a GPU are its own, taken by events.

    ``bytes_out`` and ``bytes_in``: from the device to the tier and back; ``copies_out``, ``copies_in``: in how many
    copies. ``pieces``: cold pieces that attention has read. ``attention_calls``: attention kernels started.
    """

    steps: int = 0
    bytes_out: int = 0
    bytes_in: int = 0
    copies_out: int = 0
    copies_in: int = 0
    pieces: int = 0
    attention_calls: int = 0
    _moved: list[tuple[Any, Any]] = field(default_factory=list, repr=False)
    _waited: list[tuple[Any, Any]] = field(default_factory=list, repr=False)

    @property
    def transfer_seconds(self) -> float:
        """Seconds that copies took, summed."""
        return sum(_elapsed(*marks) for marks in self._moved)

    @property
    def waited_seconds(self) -> float:
        """Seconds that computation stood still for a copy."""
        return sum(_elapsed(*marks) for marks in self._waited)

    @property
    def overlap_efficiency(self) -> float | None:
        """Share of the transfer time that computation hid: 1 - waited / transfer, at least 0; None without a copy."""
        moved = self.transfer_seconds
        return max(0.0, 1 - self.waited_seconds / moved) if moved else None


@dataclass
class Ticket:
    """A copy that was submitted. ``event``: on a CUDA device, the end of it."""

    pending: Pending | None = None
    event: Any = None


class Copier:
    """Runs copies in their order, each after all computation that was issued before it.

    The caller's obligation: :meth:`wait` before computation reads what a copy writes, or overwrites what it reads.
    """

    def __init__(self, device: torch.device, lane: Lane, stats: StreamStats) -> None:
        self.device = device
        self.lane = lane
        self.stats = stats
        self.cuda = device.type == "cuda"
        self.stream = _new_stream(device) if self.cuda and lane.overlaps else None
        self._beside = None if self.stream is None else torch.cuda.stream(self.stream)  # made once: it looks up devices

    def submit(self, direction: Direction, size: int, copy: Callable[[], None]) -> Ticket:
        """Hand over a copy of ``size`` bytes."""
        if direction == "out":
            self.stats.bytes_out += size
            self.stats.copies_out += 1
        else:
            self.stats.bytes_in += size
            self.stats.copies_in += 1
        ticket = Ticket()
        issued = None if self.stream is None else self._current().record_event()

        def job() -> None:
            if self.stream is None or self._beside is None:
                marks = self._timed(copy)
            else:  # on its own stream, behind what computation has issued
                with self._beside:  # which makes its device the current one of this thread
                    self.stream.wait_event(issued)
                    marks = self._timed(copy)
            ticket.event = marks[1]
            self.stats._moved.append(marks)
            if not self.lane.overlaps:  # computation has stood still for all of it
                self.stats._waited.append(marks)

        ticket.pending = self.lane.run(job)
        return ticket

    def wait(self, ticket: Ticket) -> None:
        """Let computation go on only behind the copy."""
        if ticket.pending is None or not self.lane.overlaps:
            return
        pending = ticket.pending
        if self.stream is None:
            self.stats._waited.append(self._timed(lambda: finish(pending)))
        else:
            finish(pending)
        ticket.pending = None
        if self.stream is not None and not ticket.event.query():
            current = self._current()
            self.stats._waited.append(self._timed(lambda: current.wait_event(ticket.event)))

    def _timed(self, action: Callable[[], object]) -> tuple[Any, Any]:
        """Run something between two marks of the current stream, or of the clock."""
        begin = self._mark()
        action()
        return begin, self._mark()

    def _mark(self) -> Any:
        if not self.cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call] # torch types no constructor of it
        event.record(self._current())
        return event

    def _current(self) -> Any:
        """The current stream of the device, asked for by number: a ``torch.device`` costs torch three times as long."""
        return torch.cuda.current_stream(self.device.index)


def _new_stream(device: torch.device) -> Any:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call] # torch types no constructor of it


def _elapsed(begin: Any, end: Any) -> float:
    """Seconds between two marks: times, or events of one device (waits for the later one)."""
    if isinstance(begin, float):
        return float(end - begin)
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1000
