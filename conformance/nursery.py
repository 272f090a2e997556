"""Runs commands of the kit in processes that have the slow imports behind them: a parent imports, each run is a fork.

``with Nursery() as nursery: nursery.run(["verify", …], log, timeout)``. One run at a time. The parent has one thread
and has computed nothing, so a fork of it is as clean as a fresh start. It ends with its starter, and its run too.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from gaugeblock.fixtures.errors import EnvironmentFault

SLOW = (
    "torch",
    "triton",
    "transformers.models.llama.modeling_llama",
    "hypothesis.stateful",
    "safetensors.torch",
    "jsonschema",
    "requests",
    "rich.console",
)
"""What most runs import; what is not installed is left out."""

START_SECONDS = 120.0
GRACE = 15.0  # for the servers of an interrupted run
POLL = 0.1  # seconds between looks at whether a run, or the one who waits for it, has ended


class Nursery:
    """One parent process and the run that it has in hand. ``imports``: what it imports beforehand.

    Raises:
        EnvironmentFault: the parent does not start.
    """

    def __init__(self, imports: Sequence[str] = SLOW) -> None:
        self._child: int | None = None
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, *imports],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            bufsize=0,
            env={"OMP_NUM_THREADS": "1", **os.environ},
        )
        if self._line(START_SECONDS) != "ready":
            self.stop()
            raise EnvironmentFault(f"a process for runs did not start within {START_SECONDS:.0f} s")

    def run(self, argv: list[str], log: Path, timeout: float) -> bool:
        """Run ``gaugeblock ARGV`` with its output in ``log``; False, and it is ended, if it takes too long."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"argv": argv, "log": str(log)}).encode() + b"\n")
        started = self._line(START_SECONDS)
        if not started:
            raise EnvironmentFault("the process for runs has died")
        self._child = int(started)
        try:
            ended = self._line(timeout)
            if not ended:
                self._end_run()
            return bool(ended)
        finally:
            self._child = None

    def interrupt(self) -> None:
        """Let the run that is in hand stop its servers, if there is one. For another thread than the one that waits."""
        if self._child is not None:
            _signal(self._child, signal.SIGINT)

    def stop(self) -> None:
        """End the parent and what it runs."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(GRACE + 5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def __enter__(self) -> Nursery:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def _end_run(self) -> None:
        assert self._child is not None
        for number in (signal.SIGINT, signal.SIGKILL):
            _signal(self._child, number)
            if self._line(GRACE):
                return

    def _line(self, timeout: float) -> str:
        """Return the parent's next line, or nothing after ``timeout`` or at its end."""
        assert self._process.stdout is not None
        line, deadline = b"", time.monotonic() + timeout
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            part = self._process.stdout.read(1) if ready else b""
            if not part:
                return ""
            line += part
        return line.decode().strip()


def main() -> None:
    """Import, then fork a run for each line of the input; its end is the end of everything."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one who started this
    for name in sys.argv[1:]:
        with suppress(ImportError):
            importlib.import_module(name)
    _say("ready")
    while line := sys.stdin.readline():
        job = json.loads(line)
        child = os.fork()
        if child == 0:
            _become(job["argv"], job["log"])
        _say(str(child))
        status = _wait(child)
        if status is None:
            return
        _say(f"ended {status}")


def _become(argv: list[str], log: str) -> None:
    """Turn this fork into the command; never returns."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(out, 1)
    os.dup2(out, 2)
    status = 4
    try:
        from gaugeblock.conformance.cli.main import run

        sys.argv = ["gaugeblock", *argv]
        run()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:  # the log is where it is looked for
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _wait(child: int) -> int | None:
    """Return the status of a run; None, and it is ended, when nobody waits for it any more."""
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        ready, _, _ = select.select([0], [], [], POLL)
        if ready:  # nothing is written while a run is in hand: this is the end
            break
    deadline = time.monotonic() + GRACE
    _signal(child, signal.SIGINT)
    while not os.waitpid(child, os.WNOHANG)[0]:
        if time.monotonic() > deadline:
            _signal(child, signal.SIGKILL)
            os.waitpid(child, 0)
            break
        time.sleep(POLL)
    return None


def _signal(child: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child, number)


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
