"""The checks of a layer that mostly waits, run in a fork of this process beside the others.

A router's checks wait for time-outs and health checks, a kernel's compute: together they take little longer than
either. The fork has everything that was imported and decided; it sends each report and result back as it comes, and
the parent takes them as its own. Neither layer's gate says anything about the other, so no verdict depends on it.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, BinaryIO

import pytest

from gaugeblock.conformance.check import Check
from gaugeblock.conformance.interrupts import interrupt_once
from gaugeblock.conformance.outcome import Outcome
from gaugeblock.conformance.results import Result
from gaugeblock.conformance.verdict import Run
from gaugeblock.fixtures.launch import stop_all

FEWEST = 10  # checks on either side below which a fork gains nothing
GRACE = 20.0  # seconds for a fork that was told to stop, with its servers
POLL = 0.02  # seconds between two looks at whether a fork has ended


class Sender:
    """The fork's side. As the run's progress it passes on what the parent's progress would be told."""

    def __init__(self, pipe: BinaryIO) -> None:
        self._pipe = pipe
        self._muted: frozenset[str] = frozenset()

    def mute(self, nodes: Iterable[str]) -> None:
        """The parent runs these too (a gate): tell of them only what is bad."""
        self._muted = frozenset(nodes)

    def started(self, checks: list[Any]) -> None:
        """The parent has told."""

    def finished(self, result: Result) -> None:
        """Send a result as it stands; a later one of the same check replaces it."""
        if self._muted and result.check.gate and result.outcome is Outcome.PASSED:
            return
        self.send("result", (result.check.id, {k: v for k, v in vars(result).items() if k != "check"}))

    def report(self, config: pytest.Config, report: pytest.TestReport) -> None:
        """Send a report for those who write reports."""
        if report.nodeid not in self._muted:
            data = config.hook.pytest_report_to_serializable(config=config, report=report)
            self.send("report", data)

    def send(self, kind: str, value: Any) -> None:
        """Send one message; without a parent there is nothing left to do."""
        try:
            pickle.dump((kind, value), self._pipe)
            self._pipe.flush()
        except OSError:
            self._leave()

    def conclude(self, run: Run) -> None:
        """Send what the run came to, and end this process with its servers."""
        state = {"abort": run.abort, "interrupted": run.interrupted, "foreign_failure": run.foreign_failure}
        self.send("end", (state, run.targets))
        self._leave()

    def _leave(self) -> None:
        stop_all()
        os._exit(0)  # the rest of pytest's end is the parent's


class Fork:
    """The parent's side: takes messages, and is sure that the fork has ended."""

    def __init__(self, process: int, pipe: BinaryIO, take: Callable[[str, Any], None]) -> None:
        self._process, self._pipe, self._take = process, pipe, take
        self._open = True

    def poll(self) -> None:
        """Take what has come."""
        while self._open and select.select([self._pipe], [], [], 0)[0]:
            self._read()

    def drain(self, seconds: float | None = None) -> None:
        """Take all that still comes, for at most ``seconds``; then end what has not ended.

        The fork's own checks have time limits each, so it ends by itself.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        try:
            while self._open and (deadline is None or time.monotonic() < deadline):
                if select.select([self._pipe], [], [], 0.5)[0]:
                    self._read()
        finally:
            self._end()

    def interrupt(self) -> None:
        """Let it stop, and take what it has."""
        with suppress(ProcessLookupError):
            os.kill(self._process, signal.SIGINT)
        self.drain(GRACE)

    def _read(self) -> None:
        try:
            kind, value = pickle.load(self._pipe)  # from our own fork
        except (EOFError, OSError, pickle.UnpicklingError):
            self._open = False
            self._take("gone", None)
            return
        self._open = kind != "end"
        self._take(kind, value)

    def _end(self) -> None:
        deadline = time.monotonic() + (GRACE if not self._open else 0.0)
        while os.waitpid(self._process, os.WNOHANG) == (0, 0):
            if time.monotonic() > deadline:
                os.kill(self._process, signal.SIGKILL)
                os.waitpid(self._process, 0)
                return
            time.sleep(POLL)  # a process that is no Popen has no timed wait


def divided(items: list[tuple[pytest.Item, Check | None]], layer: str) -> tuple[list[pytest.Item], list[pytest.Item]]:
    """Return what this process runs and what a fork runs: all of ``layer``, or every other check of it if it is alone.

    All variants of a check stay together. The layer's gate then runs on both sides, since it may block either.
    """
    theirs = [(item, check) for item, check in items if check is not None and check.layer == layer]
    if len(items) - len(theirs) >= FEWEST:
        apart = [item for item, _ in theirs]
        return [item for item, _ in items if item not in apart], apart
    variants = Counter(check.id for _, check in theirs if not check.gate)
    second = {name for name, _ in variants.most_common()[1::2]}  # the long ones are those with many variants
    apart = [item for item, check in theirs if check.gate or check.id in second]
    return [item for item, check in items if check is None or check.id not in second], apart


def worthwhile(ours: list[pytest.Item], apart: list[pytest.Item]) -> bool:
    """Whether a fork would gain time and is safe: two cores, enough on both sides, no thread but this one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    enough = min(len(ours), len(apart)) >= FEWEST
    return cores > 1 and enough and hasattr(os, "fork") and threading.active_count() == 1


def fork(config: pytest.Config, take: Callable[[str, Any], None]) -> Fork | Sender:
    """Fork; returns the other side's handle in each of both processes."""
    reading, writing = os.pipe()
    process = os.fork()
    if process:
        os.close(writing)
        return Fork(process, os.fdopen(reading, "rb"), take)
    os.close(reading)
    interrupt_once()  # Ctrl-C comes from the terminal, which reaches this process too, and again from the parent
    _capture_anew(config)
    return Sender(os.fdopen(writing, "wb"))


def _capture_anew(config: pytest.Config) -> None:
    """Let the fork's output go nowhere: pytest's captures are files whose place both processes would move."""
    manager = config.pluginmanager.getplugin("capturemanager")
    if manager is not None:
        manager.stop_global_capturing()
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (1, 2):
        os.dup2(nowhere, descriptor)
    if manager is not None:
        manager.start_global_capturing()
