"""A Chrome trace of torch.profiler as a tree of operator calls, each with the device kernels that it launched.

Traces are read from the file, never from the profiler object, so that one reader serves this process, an SGLang engine
and a trace copied from another machine. Times are microseconds.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gaugeblock.fixtures.errors import KitError

PHASE = "gaugeblock."
"""Prefix of the annotations that name a phase."""
LAUNCHES = ("cuda_runtime", "cuda_driver")
ON_DEVICE = ("kernel", "gpu_memcpy", "gpu_memset")
BY_EVENTS = "gaugeblockByEvents"
"""Key of a trace whose kernels stand for operators, timed by CUDA events."""


@dataclass(eq=False)
class Kernel:
    """Something that ran on the device: a kernel, a copy or a fill."""

    name: str
    us: float
    phase: str = ""


@dataclass(eq=False)
class OpCall:
    """One call of a PyTorch operator. ``shapes``, ``dtypes``, ``strides`` and ``values`` have an entry an argument.

    ``id`` is the profiler's own, 0 where it gives none.
    """

    name: str
    begin: float
    end: float
    thread: Any = 0
    shapes: list[Any] = field(default_factory=list)
    dtypes: list[str] = field(default_factory=list)
    strides: list[Any] = field(default_factory=list)
    values: list[str] = field(default_factory=list)
    id: int = 0
    children: list[OpCall] = field(default_factory=list)
    kernels: list[Kernel] = field(default_factory=list)
    phase: str = ""

    @property
    def host_us(self) -> float:
        """Time on the host without that of the operators it called."""
        return max(self.end - self.begin - sum(child.end - child.begin for child in self.children), 0.0)

    @property
    def device_us(self) -> float:
        """Time of its own kernels."""
        return sum(kernel.us for kernel in self.kernels)

    def walk(self) -> Iterator[OpCall]:
        """Yield this call and all below it."""
        yield self
        for child in self.children:
            yield from child.walk()


@dataclass
class Trace:
    """``calls``: the outermost ones in order of time; ``loose``: kernels launched outside any operator.

    ``phases``: wall time by name; ``slowed``: by how much recording has stretched it, where that is known. ``device``:
    the accelerator's name, None on a CPU. ``peak_bytes``: the most that was allocated at once above what was there at
    the start, None when the profiler did not record memory. ``by_events``: each kernel stands for an operator and has
    the time between the CUDA events around it.
    """

    calls: list[OpCall]
    loose: list[Kernel]
    phases: dict[str, float]
    device: str | None = None
    peak_bytes: int | None = None
    slowed: dict[str, float] = field(default_factory=dict)
    by_events: bool = False

    def unrecorded(self, walls: dict[str, float]) -> None:
        """Take the wall times (µs) of runs that were not recorded."""
        self.slowed = {name: max(self.phases[name] / us, 1.0) for name, us in walls.items() if name in self.phases}
        self.phases = {**self.phases, **walls}

    @property
    def on_device(self) -> bool:
        """Whether kernels were recorded: then their time counts, not the host's."""
        return bool(self.loose) or any(call.kernels for call in self.walk())

    def walk(self) -> Iterator[OpCall]:
        """Yield every call."""
        for call in self.calls:
            yield from call.walk()


def read_trace(path: Path) -> Trace:
    """Read a Chrome trace, plain or gzipped.

    Raises:
        KitError: no such file, or not a trace of torch.profiler.
    """
    try:
        raw = path.read_bytes()
        data = json.loads(gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw)
        return parse_trace(data)
    except (OSError, EOFError) as error:
        raise KitError(f"cannot read the trace {str(path)!r}: {error}") from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise KitError(f"{str(path)!r} is not a Chrome trace of torch.profiler: {error!r}") from None


def parse_trace(data: Any) -> Trace:
    """Build the tree from the parsed JSON."""
    events = [e for e in data["traceEvents"] if isinstance(e, dict)]
    spans = [e for e in events if e.get("ph") == "X"]
    annotations = [
        (e["name"].removeprefix(PHASE), e["ts"], e["ts"] + e["dur"])
        for e in spans
        if e.get("cat") == "user_annotation" and e["name"].startswith(PHASE)
    ]
    roots, owners, launched = _nest([e for e in spans if e.get("cat") in ("cpu_op", *LAUNCHES)])
    loose: list[Kernel] = []
    for event in spans:
        if event.get("cat") in ON_DEVICE:
            correlation = event.get("args", {}).get("correlation")
            kernel = Kernel(event["name"], float(event["dur"]))
            kernel.phase = _phase(annotations, launched.get(correlation, float(event["ts"])))
            owner = owners.get(correlation)
            (loose if owner is None else owner.kernels).append(kernel)
    for root in roots:
        name = _phase(annotations, root.begin)
        for call in root.walk():
            call.phase = name
    walls: dict[str, float] = {}
    for name, begin, end in annotations:
        walls[name] = walls.get(name, 0.0) + end - begin
    devices = data.get("deviceProperties") or [{}]
    name = devices[0].get("name")
    return Trace(roots, loose, walls, name, _peak(events), by_events=bool(data.get(BY_EVENTS)))


def _nest(spans: list[Any]) -> tuple[list[OpCall], dict[Any, OpCall], dict[Any, float]]:
    """Return outermost calls, and for each launch (by correlation) the innermost call around it and its time."""
    roots: list[OpCall] = []
    owners: dict[Any, OpCall] = {}
    launched: dict[Any, float] = {}
    stacks: dict[Any, list[OpCall]] = {}
    for event in sorted(spans, key=lambda e: (e["ts"], -e.get("dur", 0))):
        thread = (event.get("pid"), event.get("tid"))
        stack = stacks.setdefault(thread, [])
        while stack and stack[-1].end <= event["ts"]:
            stack.pop()
        if event["cat"] in LAUNCHES:
            correlation = event.get("args", {}).get("correlation")
            launched[correlation] = event["ts"]
            if stack:
                owners[correlation] = stack[-1]
            continue
        call = _call(event, thread)
        (stack[-1].children if stack else roots).append(call)
        stack.append(call)
    return roots, owners, launched


def _call(event: Any, thread: Any) -> OpCall:
    args = event.get("args", {})
    return OpCall(
        event["name"],
        float(event["ts"]),
        float(event["ts"] + event["dur"]),
        thread,
        args.get("Input Dims", []),
        args.get("Input type", []),
        args.get("Input Strides", []),
        args.get("Concrete Inputs", []),
        args.get("External id", 0),
    )


def _phase(annotations: list[tuple[str, float, float]], moment: float) -> str:
    return next((name for name, begin, end in annotations if begin <= moment < end), "")


def _peak(events: list[Any]) -> int | None:
    """Return the highest sum of allocations, on the accelerator if there are any, else on the CPU."""
    by_device: dict[bool, list[tuple[float, int]]] = {True: [], False: []}
    for event in events:
        if event.get("name") == "[memory]":
            args = event["args"]
            by_device[args.get("Device Type", 0) != 0].append((event["ts"], args["Bytes"]))
    steps = by_device[True] or by_device[False]
    if not steps:
        return None
    level = highest = 0
    for _, change in sorted(steps):
        level += change
        highest = max(highest, level)
    return highest
