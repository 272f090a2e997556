"""Where the host's side of a copy runs: at once, in a thread of its own, or as late as it may."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Protocol

from gaugeblock.reference.engine.errors import PrefillError
from gaugeblock.reference.kv.workers import Workers

TIMEOUT = 120.0
"""Seconds that a copy may take: a dead disk or device ends the call instead of hanging it."""

CLOSE_SECONDS = 30.0
"""How long the thread of a lane may take to end."""


class Pending(Protocol):
    """A job that was handed over."""

    def result(self, timeout: float) -> None:
        """Return when the job is done; raise what it raised."""


class Lane(Protocol):
    """Runs jobs one after the other, in their order."""

    overlaps: bool
    """Whether jobs run beside the caller, so that a CUDA device gives their copies a stream of their own."""

    def run(self, job: Callable[[], None]) -> Pending:
        """Take a job."""

    def close(self) -> None:
        """End what was started."""


class _Done:
    def result(self, timeout: float) -> None:
        """Nothing to wait for."""


_DONE = _Done()


class InlineLane:
    """Runs a job before :meth:`run` returns."""

    def __init__(self, *, overlaps: bool = False) -> None:
        self.overlaps = overlaps

    def run(self, job: Callable[[], None]) -> Pending:
        """Run it."""
        job()
        return _DONE

    def close(self) -> None:
        """Nothing to end."""


class ThreadLane:
    """Runs jobs in one thread: torch's copies and file reads let the caller's thread compute meanwhile."""

    overlaps = True

    def __init__(self) -> None:
        self._pool = Workers(1, "chunked-prefill-copies")

    def run(self, job: Callable[[], None]) -> Pending:
        """Queue it."""
        return self._pool.submit(job)

    def close(self) -> None:
        """End the thread after what is queued.

        Raises:
            PrefillError: that takes longer than ``CLOSE_SECONDS``; the thread may still use its tier.
        """
        self._pool.shutdown(wait=False)
        if not self._pool.ended(CLOSE_SECONDS):
            raise PrefillError(
                f"a KV copy did not end within {CLOSE_SECONDS:.0f} s after the call: what it uses is kept for it"
            )


class DelayedLane:
    """Runs nothing until somebody waits for it: the slowest that a lane may be, and the same every time."""

    overlaps = True

    def __init__(self) -> None:
        self._jobs: deque[_Late] = deque()

    def run(self, job: Callable[[], None]) -> Pending:
        """Keep it."""
        late = _Late(self, job)
        self._jobs.append(late)
        return late

    def catch_up(self, last: _Late) -> None:
        """Run what is queued, up to and with ``last``."""
        while last in self._jobs:
            job = self._jobs.popleft()
            job.job()

    def close(self) -> None:
        """Forget what nobody waited for."""
        self._jobs.clear()


class _Late:
    def __init__(self, lane: DelayedLane, job: Callable[[], None]) -> None:
        self.lane = lane
        self.job = job

    def result(self, timeout: float) -> None:
        self.lane.catch_up(self)


def finish(pending: Pending) -> None:
    """Wait for a job.

    Raises:
        PrefillError: it takes longer than ``TIMEOUT`` seconds.
    """
    try:
        pending.result(timeout=TIMEOUT)
    except FutureTimeout:
        raise PrefillError(
            f"a KV copy did not end within {TIMEOUT:.0f} s: look at the disk or device it is on"
        ) from None


def choose_lane(overlap: bool | str | Lane, cuda: bool, blocking: bool) -> Lane:
    """Return the lane that ``overlap`` asks for. ``blocking``: the tier's calls wait for files.

    Raises:
        PrefillError: none of the legal values.
    """
    if overlap is False:
        return InlineLane()
    if overlap is True:  # copies between pinned memory and a GPU return at once: their stream is the overlap
        return InlineLane(overlaps=True) if cuda and not blocking else ThreadLane()
    if overlap == "delayed":
        return DelayedLane()
    if isinstance(overlap, str) or not all(hasattr(overlap, name) for name in ("run", "close", "overlaps")):
        raise PrefillError(
            f"overlap={overlap!r}: give True, False, 'delayed', or an object with run, close and overlaps"
        )
    return overlap
