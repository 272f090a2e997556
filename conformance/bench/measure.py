"""One shape: judge every implementation, then time them all in turns, the copy among them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from gaugeblock.conformance.bench.budgets import BEST_PEER, CEILING, Budget, Judged, Term, judge
from gaugeblock.conformance.bench.ceilings import Ceilings
from gaugeblock.conformance.bench.correctness import outputs_of, shares
from gaugeblock.conformance.bench.implementations import Implementation
from gaugeblock.conformance.bench.timing import ROUNDS, Call, Mode, Timer, Times
from gaugeblock.conformance.bench.workloads import Workload
from gaugeblock.kernels.arguments import Unclaimed
from gaugeblock.kernels.contract import Case, Op

WRONG = 1e6
"""The share of an error budget that stands for more, infinity included."""


@dataclass
class Entry:
    """What became of one implementation at one shape. Times in microseconds, memory in bytes."""

    name: str
    kind: str
    outcome: str = "measured"
    message: str = ""
    budget_used: dict[str, float] = field(default_factory=dict)
    peak_bytes: int | None = None
    launch: Times | None = None
    graph: Times | None = None
    r: float | None = None
    gemm: float | None = None

    def best(self) -> Times | None:
        """The times that count: in a graph where there is one."""
        return self.graph or self.launch


@dataclass
class Shape:
    """One op at one shape: its cost, its entries, and the verdict on the first of them."""

    op: str
    label: str
    mode: Mode
    dtype: str
    bytes_moved: int
    flops: int
    copy: Times | None = None
    product: Times | None = None
    entries: list[Entry] = field(default_factory=list)
    gate: Judged | None = None
    goal: Judged | None = None

    def entry(self, name: str) -> Entry | None:
        """Return the entry of an implementation."""
        return next((entry for entry in self.entries if entry.name == name), None)

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return asdict(self)


def measure(
    workload: Workload,
    op: Op,
    implementations: Sequence[Implementation],
    timer: Timer,
    ceilings: Ceilings,
    device: str,
    *,
    rounds: int = ROUNDS,
) -> Shape:
    """Judge and time the implementations of one op at one shape."""
    case = op.workload(device, workload.dtype, **workload.shape)
    shape = Shape(
        op.name,
        workload.label,
        workload.mode,
        str(workload.dtype).removeprefix("torch."),
        op.bytes_moved(case),
        op.flops(case),
    )
    count = timer.rotation(shape.bytes_moved)
    sets = [case, *(op.workload(device, workload.dtype, **workload.shape) for _ in range(count - 1))]
    calls: dict[str, list[Call]] = {}
    for implementation in implementations:
        entry, prepared = _prepare(implementation, op, sets, timer)
        shape.entries.append(entry)
        if prepared:
            calls[entry.name] = prepared
    modes: tuple[Mode, ...] = ("launch", "graph") if workload.mode == "graph" else ("launch",)
    for mode in modes:
        _time(shape, calls, mode, timer, ceilings, rounds)
    _derive(shape, ceilings)
    return shape


def _prepare(
    implementation: Implementation, op: Op, sets: Sequence[Case], timer: Timer
) -> tuple[Entry, list[Call] | None]:
    """Judge on the first input set, and make the calls to time; an in-place call spoils only its own set of copies."""
    entry = Entry(implementation.name, implementation.kind)
    try:
        outputs = outputs_of(op, sets[0], implementation.call) if implementation.judged else None
        if outputs is not None and not getattr(implementation.call, "own_randomness", False):
            used = shares(op, sets[0], outputs)
            entry.budget_used = {name: round(min(share, WRONG), 4) for name, share in used.items()}
        del outputs
        calls = [implementation.timed(case) for case in sets]
        entry.peak_bytes = timer.peak_bytes(calls[0])
    except Unclaimed as reason:
        entry.outcome, entry.message = "unsupported", str(reason)
    except Exception as error:  # whatever a library raises is its entry's outcome, not the run's end
        entry.outcome, entry.message = "failed", _short(error)
    return entry, calls if entry.outcome == "measured" else None


def _time(
    shape: Shape, calls: Mapping[str, list[Call]], mode: Mode, timer: Timer, ceilings: Ceilings, rounds: int
) -> None:
    """Let all take turns for some rounds; what fails in one is left out of the rest."""
    samples: dict[str, list[list[float]]] = {name: [] for name in calls}
    copies, products = [], []
    many_operations = shape.flops / shape.bytes_moved > ceilings.gemm / ceilings.copy
    for _ in range(rounds):
        copies.append(timer.samples(ceilings.copy_calls, "launch"))
        if many_operations and ceilings.gemm_calls:
            products.append(timer.samples(ceilings.gemm_calls, "launch"))
        for name in list(samples):
            try:
                samples[name].append(timer.samples(calls[name], mode))
            except Exception as error:  # capture is refused, memory runs out
                del samples[name]
                entry = shape.entry(name)
                assert entry is not None
                if mode == "launch":
                    entry.outcome = "failed"
                entry.message = f"{mode}: {_short(error)}"
    shape.copy = Times.of(copies)
    shape.product = Times.of(products) if products else None
    for name, measured in samples.items():
        entry = shape.entry(name)
        assert entry is not None
        setattr(entry, mode, Times.of(measured))


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:300]


def _derive(shape: Shape, ceilings: Ceilings) -> None:
    """Compute the shares of the ceilings; one above what the card can do is an error of the measurement."""
    assert shape.copy is not None
    for entry in shape.entries:
        times = entry.best()
        if times is None or entry.outcome != "measured":
            continue
        entry.r = statistics.median(_r(shape, times))
        entry.gemm = statistics.median(_gemm(shape, times, ceilings))
        if entry.kind == "baseline":
            continue
        over = {"R": (entry.r, CEILING), "GEMM": (entry.gemm, CEILING * ceilings.int8_factor(shape.op))}
        wrong = [f"{name} {value:.3f} > {limit:.2f}" for name, (value, limit) in over.items() if value > limit]
        if wrong:
            entry.outcome, entry.message = "impossible", f"faster than the card ({', '.join(wrong)}): measured wrongly"


def _r(shape: Shape, times: Times) -> list[float]:
    assert shape.copy is not None
    return [
        shape.bytes_moved / one * copy / Ceilings.COPIED
        for one, copy in zip(times.rounds, shape.copy.rounds, strict=True)
    ]


def _gemm(shape: Shape, times: Times, ceilings: Ceilings) -> list[float]:
    if shape.product is None:
        return [shape.flops / one / ceilings.gemm for one in times.rounds]  # operations a microsecond
    pairs = zip(times.rounds, shape.product.rounds, strict=True)
    return [shape.flops / one * product / Ceilings.MULTIPLIED for one, product in pairs]


def hold(shape: Shape, budget: Budget, ceilings: Ceilings) -> None:
    """Judge the first entry by its budget."""
    shape.gate = _judged(shape, budget.gate, budget.noise, ceilings)
    shape.goal = _judged(shape, budget.goal, budget.noise, ceilings) if budget.goal else None


def _judged(shape: Shape, term: Term, noise: float, ceilings: Ceilings) -> Judged:
    ours = shape.entries[0]
    times = ours.best()
    if ours.outcome == "impossible":
        return Judged(term, "inconclusive", None, None, "", ours.message)
    if ours.outcome != "measured" or times is None:
        return Judged(term, "not judged", None, None, "", f"{ours.name}: {ours.outcome}, {ours.message}")
    metrics: dict[str, Callable[[], list[float]]] = {
        "r": lambda: _r(shape, times),
        "gemm": lambda: _gemm(shape, times, ceilings),
    }
    if term.metric in metrics:
        return judge(term, noise, metrics[term.metric]())
    other = _against(shape, term.against)
    if other is None:
        return Judged(term, "not judged", None, None, "", f"{term.against} was not measured")
    name, base = other
    return judge(term, noise, [one / two for one, two in zip(times.rounds, base.rounds, strict=True)], name)


def _against(shape: Shape, name: str) -> tuple[str, Times] | None:
    """Return what a term divides by; the best peer is the fastest right one that is neither ours nor a baseline."""
    rivals = [e for e in shape.entries[1:] if e.kind in ("peer", "compile", "eager")] if name == BEST_PEER else None
    candidates = rivals if rivals is not None else [e for e in shape.entries if e.name == name]
    measured = [(e.name, times) for e in candidates if e.outcome == "measured" and (times := e.best()) is not None]
    return min(measured, key=lambda pair: pair[1].median, default=None)


def free() -> None:
    """Give the memory of one shape back before the next is made."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
