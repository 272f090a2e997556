"""Measure a model again with fused ops in place: time, launches, memory, and whether it still computes the same."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gaugeblock.conformance.profiling.agreement import Agreement, Judge
from gaugeblock.conformance.profiling.operators import busy_us, launches
from gaugeblock.conformance.profiling.patching import Fusion, fused
from gaugeblock.conformance.profiling.recording import profile
from gaugeblock.conformance.profiling.trace import read_trace
from gaugeblock.conformance.profiling.workload import Seconds, Workload, run, synchronize
from gaugeblock.kernels.contract import Op
from gaugeblock.kernels.runtime import DEVICE, INTERPRETED

PHASES = ("prefill", "decode")
ROUNDS = (5, 25)
SECONDS = 3.0
"""Time that the rounds of one variant may take, within their least and greatest number."""


@dataclass(frozen=True)
class Implementation:
    """What is put in place of a composition, and whether its time says anything (``why`` not)."""

    label: str
    calls: dict[Fusion, Callable[..., Any]]
    timed: bool = True
    why: str = ""


@dataclass(frozen=True)
class Shares:
    """Speed-up of one phase: ratio of the medians, and the 10th and 90th percentile of the ratios round by round."""

    before_s: float
    after_s: float
    low: float
    high: float

    @property
    def speedup(self) -> float:
        """Time before over time after."""
        return self.before_s / self.after_s

    @property
    def noisy(self) -> bool:
        """Whether the rounds do not even agree that it is faster, or that it is slower."""
        return self.low <= 1 <= self.high

    def describe(self) -> dict[str, Any]:
        """Return the numbers as JSON."""
        return {
            "before_s": self.before_s,
            "after_s": self.after_s,
            "speedup": round(self.speedup, 4),
            "range": [round(self.low, 4), round(self.high, 4)],
            "within_noise": self.noisy,
        }


@dataclass(frozen=True)
class Work:
    """What a run makes the device do: kernels (on a CPU operator calls) and busy time a phase, peak bytes.

    Kernels and busy time are empty where operators were timed by CUDA events: a kernel launched outside any operator,
    as the fused ones are, has none.
    """

    launches: dict[str, int]
    busy_us: dict[str, float]
    peak_bytes: int | None

    def describe(self) -> dict[str, Any]:
        """Return the numbers as JSON."""
        return {
            "launches": self.launches,
            "busy_us": {name: round(us, 1) for name, us in self.busy_us.items()},
            "peak_bytes": self.peak_bytes,
        }


@dataclass(frozen=True)
class Variant:
    """The model with some ops in place. ``times`` is empty where the implementation's time says nothing."""

    ops: tuple[str, ...]
    implementation: str
    places: int
    agreement: Agreement
    times: dict[str, Shares]
    before: Work | None = None
    after: Work | None = None
    why_untimed: str = ""

    def describe(self) -> dict[str, Any]:
        """Return the variant as JSON."""
        return {
            "ops": list(self.ops),
            "implementation": self.implementation,
            "places": self.places,
            "agreement": self.agreement.describe(),
            "phases": {name: share.describe() for name, share in self.times.items()},
            "before": self.before.describe() if self.before else None,
            "after": self.after.describe() if self.after else None,
            "why_untimed": self.why_untimed or None,
        }


def ours(fusions: list[Fusion], contracts: dict[str, Op], device: str) -> Implementation | None:
    """Return our kernels; None where they cannot run on the model's device at all."""
    if device != DEVICE:
        return None
    why = "a Triton kernel needs a GPU: in the interpreter its time says nothing" if INTERPRETED else ""
    return Implementation("ours (Triton)", {f: contracts[f.op].kernel for f in fusions}, not INTERPRETED, why)


def compiled(fusions: list[Fusion], contracts: dict[str, Op]) -> Implementation:
    """Return torch.compile of the same compositions."""
    calls = {f: torch.compile(contracts[f.op].eager, dynamic=True) for f in fusions}
    return Implementation("torch.compile of the composition", calls)


def eager(fusions: list[Fusion], contracts: dict[str, Op]) -> Implementation:
    """Return the unfused baselines of the ops: what the replacement costs or gains without any fused kernel."""
    return Implementation("unfused baseline of the op", {f: contracts[f.op].eager for f in fusions})


def compiler_missing(device: str) -> str:
    """Return why torch.compile cannot run on a device, empty when it can."""
    if device != "cpu":
        return ""
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        return "torch.compile needs a C++ compiler on a CPU, and none was found"
    return ""


def measure_variant(
    model: Any, work: Workload, judge: Judge, implementation: Implementation, before: Work | None, trace: Path
) -> Variant:
    """Judge the outputs and, where the time means something, time the model with and without the ops in turn.

    ``trace`` takes the Chrome trace of the fused run. A wrong replacement is not timed: it does other work.
    """
    ops = tuple(f.op for f in implementation.calls)
    with fused(model, implementation.calls) as places:
        found = sum(places.values())
    agreement = judge.judge(implementation.calls)
    if not agreement.right:
        return Variant(ops, implementation.label, found, agreement, {}, why_untimed="the outputs differ")
    if not implementation.timed:
        return Variant(ops, implementation.label, found, agreement, {}, why_untimed=implementation.why)
    times = compare_times(model, work, implementation)
    with fused(model, implementation.calls):
        after = observe(model, work, trace)
    return Variant(ops, implementation.label, found, agreement, times, before, after)


def compare_times(model: Any, work: Workload, implementation: Implementation) -> dict[str, Shares]:
    """Return the shares of both phases; rounds with and without the ops alternate, so that drift meets both."""
    run(model, work)
    start, _ = run(model, work)
    with fused(model, implementation.calls):
        run(model, work)  # compiles
        run(model, work)
    once = 2 * (start.prefill + start.decode * work.decode)
    rounds = min(max(int(SECONDS / once), ROUNDS[0]), ROUNDS[1])
    befores: list[Seconds] = []
    afters: list[Seconds] = []
    for _ in range(rounds):
        befores.append(run(model, work)[0])
        with fused(model, implementation.calls):
            afters.append(run(model, work)[0])
    return {name: _shares([getattr(s, name) for s in befores], [getattr(s, name) for s in afters]) for name in PHASES}


def _shares(before: list[float], after: list[float]) -> Shares:
    ratios = statistics.quantiles([b / a for b, a in zip(before, after, strict=True)], n=10, method="inclusive")
    return Shares(statistics.median(before), statistics.median(after), ratios[0], ratios[-1])


def observe(model: Any, work: Workload, trace: Path) -> Work:
    """Profile one run into ``trace`` and return what it did.

    Peak bytes above what was allocated before the run (the weights): from the caching allocator on a GPU, from the
    profiler's record of allocations on a CPU.
    """
    profile(model, work, trace)
    found = read_trace(trace)
    peak = found.peak_bytes
    if model.device.type == "cuda":
        synchronize(model.device)
        resting = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run(model, work)
        peak = torch.cuda.max_memory_allocated() - resting
    counted = () if found.by_events else PHASES
    return Work(
        {name: launches(found, name) for name in counted},
        {name: busy_us(found, name) for name in counted},
        peak,
    )
