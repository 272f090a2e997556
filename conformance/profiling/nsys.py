"""Run an engine's launch under Nsight Systems, with one request sent to it when its URL is known."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from gaugeblock.fixtures.errors import EnvironmentFault, KitError, TargetFault
from gaugeblock.fixtures.targets.wire import Limits, Wire

READY = 900.0  # seconds until a wrapped engine must answer: under nsys it loads and compiles slowly
POLL = 0.5  # between two questions whether it does; there is no event to wait for
ENDING = 180.0  # seconds that nsys has to write its report after the interrupt


def nsys_command(nsys: str, command: Sequence[str], report: Path) -> list[str]:
    """Return the whole command line: CUDA, NVTX and OS calls, child processes included, each kernel of a graph."""
    options = ["--trace=cuda,nvtx,osrt", "--trace-fork-before-exec=true", "--cuda-graph-trace=node"]
    return [nsys, "profile", *options, "--force-overwrite=true", "-o", str(report), *command]


def wrap(command: list[str], url: str | None, api_key: str | None, prompt: int, decode: int, out: Path) -> int:
    """Run ``command`` under nsys and return its exit code; the report is ``engine.nsys-rep`` in ``out``.

    Without ``url`` the command runs until it ends or is interrupted. With it, the kit waits until the engine answers,
    sends one request, and ends it.

    Raises:
        KitError: there is no such command.
        EnvironmentFault: nsys is not on the PATH, or the engine ended or did not answer in time.
    """
    nsys = shutil.which("nsys")
    if nsys is None:
        raise EnvironmentFault(
            "nsys is not on the PATH: install NVIDIA Nsight Systems (developer.nvidia.com/nsight-systems), or profile "
            "without it: gaugeblock profile --engine-url URL"
        )
    if shutil.which(command[0]) is None:
        raise KitError(f"no program {command[0]!r} to run under nsys")
    report = out.resolve() / "engine"
    process = subprocess.Popen(nsys_command(nsys, command, report), start_new_session=True)
    code = 0
    try:
        if url is None:
            code = process.wait()
        else:
            _await(process, url, api_key)
            _request(url, api_key, prompt, decode)
    except KeyboardInterrupt:
        sys.stderr.write("gaugeblock: interrupted; nsys writes its report\n")
    finally:
        _end(process)
    written = sorted(out.glob("engine*.nsys-rep"))
    if not written:
        raise EnvironmentFault(f"nsys ended with {process.returncode} and wrote no report to {out}")
    sys.stdout.write(f"written: {written[-1]} (open it in nsys-ui, or: nsys stats {written[-1]})\n")
    return 0 if code == 0 else 4


def _await(process: subprocess.Popen[bytes], url: str, api_key: str | None) -> None:
    wire = Wire(url.rstrip("/"), Limits(connect=2.0, idle=20.0, total=20.0), api_key)
    deadline = time.monotonic() + READY
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise EnvironmentFault(
                f"the command under nsys ended with {process.returncode} before it answered at {url}"
            )
        try:
            if wire.call("GET", "/v1/models").ok:
                return
        except TargetFault:
            pass  # not listening yet
        time.sleep(POLL)
    raise EnvironmentFault(f"the engine under nsys did not answer at {url} within {READY:g} s")


def _request(url: str, api_key: str | None, prompt: int, decode: int) -> None:
    from gaugeblock.conformance.profiling.sending import send
    from gaugeblock.fixtures.targets.engine import EngineTarget

    send(EngineTarget(url.rstrip("/"), api_key=api_key), prompt, decode)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the group: an interrupt, on which nsys writes its report, then by force."""
    for number, patience in ((signal.SIGINT, ENDING), (signal.SIGTERM, 10.0)):
        if process.poll() is not None:
            break
        _signal(process, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
    _signal(process, signal.SIGKILL)  # what outlived the leader
    process.wait()


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)
