"""A run recorded as a Chrome trace with the GPU's kernels in it, or else with operators timed by CUDA events.

Kineto, PyTorch's recorder, drops a kernel whose time stamp lies outside of the recording. The stamps come from CUPTI,
and its clock may differ from the host's: where the clock of a sandbox drifts (google/gvisor#14002), and, more with each
recording of a process, where Kineto registers its own clock again (pytorch/pytorch#192021). What is lost then are some
kernels, the first or all, without a word. So a recording counts only if nearly every launch in it has its kernel; the
next ones wait before and after the run, which takes in stamps that are off by less; and where that does not help, the
operators are timed by CUDA events, which need no CUPTI.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from gaugeblock.conformance.profiling.trace import BY_EVENTS, LAUNCHES, ON_DEVICE, OpCall, parse_trace
from gaugeblock.conformance.profiling.workload import RECORDED, Seconds, Workload, run
from gaugeblock.fixtures.errors import EnvironmentFault

WAITS = (0.0, 1.0)
"""Seconds that a recording goes on before and after the run, tried in turn."""

COMPLETE = 0.99
"""The least share of launches whose kernel must be there."""

_LAUNCH = re.compile("Launch(Cooperative)?Kernel|GraphLaunch")
_first_try: dict[str, int] = {}  # by device type: what has not worked is not tried again


def profile(model: Any, work: Workload, out: Path) -> None:
    """Write the Chrome trace of the fastest of a few recorded runs: whatever else the machine does only adds time.

    Raises:
        EnvironmentFault: on a GPU neither the recordings nor CUDA events say how long anything took.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # else the profiler prints its own start and stop
    run(model, work)
    device = model.device.type
    waits = WAITS if device == "cuda" else WAITS[:1]
    for number in range(_first_try.get(device, 0), len(waits)):
        recording = _fastest(model, work, waits[number], out)
        if recording is not None:
            _write(recording, out)
            return
        _first_try[device] = number + 1
    _write(_timed_by_events(model, work, out), out)


def _fastest(model: Any, work: Workload, wait: float, scratch: Path) -> dict[str, Any] | None:
    """Return the fastest run's trace; on a GPU of those that hold their kernels, None if no run does."""
    on_gpu = model.device.type == "cuda"
    activities = [torch.profiler.ProfilerActivity.CPU]
    if on_gpu:
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    best: tuple[float, dict[str, Any]] | None = None
    for _ in range(RECORDED):
        with torch.profiler.profile(activities=activities, record_shapes=True, profile_memory=True) as profiler:
            time.sleep(wait)  # no event tells when a clock of unknown offset has passed the start
            seconds, _ = run(model, work, annotate=True)
            time.sleep(wait)
        whole = _whole(seconds, work)
        if best is not None and whole >= best[0]:
            continue
        data = _exported(profiler, scratch)
        if not on_gpu or kernels_kept(data) >= COMPLETE:
            best = whole, data
    return best[1] if best else None


def _whole(seconds: Seconds, work: Workload) -> float:
    return seconds.prefill + seconds.decode * work.decode


def kernels_kept(data: dict[str, Any]) -> float:
    """Return the share of launches in a trace whose kernel is there too; 0 where no kernel is."""
    launched, ran = set(), set()
    for event in data["traceEvents"]:
        correlation = event.get("args", {}).get("correlation")
        if event.get("cat") in ON_DEVICE:
            ran.add(correlation)
        elif event.get("cat") in LAUNCHES and _LAUNCH.search(event["name"]):
            launched.add(correlation)
    if not ran:
        return 0.0
    return len(launched & ran) / len(launched) if launched else 1.0


def _timed_by_events(model: Any, work: Workload, scratch: Path) -> dict[str, Any]:
    """Return a trace in which each operator has the time between two CUDA events for its kernel.

    The GPU is kept busy before each step, so that what the host launches meanwhile runs without gaps.
    """
    seconds, _ = run(model, work)
    behind = min(1.5 * max(seconds.prefill, seconds.decode), 0.05)
    with torch.autograd.profiler.profile(use_device="cuda", record_shapes=True, profile_memory=True) as profiler:
        run(model, work, annotate=True, before_step=_busy(behind))
    elapsed = {e.correlation_id(): float(e.cuda_elapsed_us()) for e in profiler.kineto_results.events()}
    if not any(us > 0 for us in elapsed.values()):
        raise EnvironmentFault(
            f"torch.profiler recorded no kernel of the GPU in {RECORDED * len(WAITS)} runs, and CUDA events around the "
            "operators show no time: is another profiler attached, or does CUPTI lack permission? (ncu, nsys and a "
            "container without CAP_SYS_ADMIN keep it away)"
        )
    return with_event_times(_exported(profiler, scratch), elapsed)


def _busy(seconds: float) -> Callable[[], None]:
    khz = getattr(torch.cuda.get_device_properties(0), "clock_rate", 2_000_000)
    cycles = int(seconds * 1e3 * khz)
    return lambda: torch.cuda._sleep(cycles)  # type: ignore[no-untyped-call] # torch does not annotate it


def with_event_times(data: dict[str, Any], elapsed: dict[int, float]) -> dict[str, Any]:
    """Return a trace with a kernel for each operator that took time itself: its own less that of those inside it.

    ``elapsed``: microseconds between the events around each operator, by its id in the trace; −1 where there are none.
    """
    added: list[dict[str, Any]] = []

    def visit(call: OpCall) -> None:
        inside = sum(max(elapsed.get(child.id, 0.0), 0.0) for child in call.children)
        own = max(elapsed.get(call.id, 0.0), 0.0) - inside
        if own > 0:
            number = -1 - len(added)  # no correlation of a real launch
            at = {"ph": "X", "ts": call.begin, "args": {"correlation": number}, "pid": call.thread[0]}
            added.append({**at, "cat": LAUNCHES[0], "name": call.name, "dur": 0, "tid": call.thread[1]})
            added.append({**at, "cat": ON_DEVICE[0], "name": call.name, "dur": own, "tid": "CUDA events"})
        for child in call.children:
            visit(child)

    for call in parse_trace(data).calls:
        visit(call)
    return {**data, "traceEvents": [*data["traceEvents"], *added], BY_EVENTS: True}


def _exported(profiler: Any, scratch: Path) -> dict[str, Any]:
    profiler.export_chrome_trace(str(scratch))
    data: dict[str, Any] = json.loads(scratch.read_bytes())
    return data


def _write(data: dict[str, Any], out: Path) -> None:
    out.write_text(json.dumps(data), encoding="utf-8")
