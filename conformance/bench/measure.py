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
from gaugeblock.kernels.contract import Case, Op, Tensors

WRONG = 1e6
"""The share of an error budget that stands for more, infinity included."""

ANOTHER_ROUNDING = 5.0
"""The largest share of its error budget that a rival may use and still be the one to beat.

The bounds allow one rounding to the storage dtype, half a unit in the last place. Libraries round where the contract
does not: a factor of the result, or the sum that it is made of. Each such rounding moves a result by up to 2⁻ᵖ of it (p
bits in the storage dtype), which just below a power of two is two of those halves. So one more gives up to 3 × the
bound (sgl_kernel's add+RMSNorm 2.95, Liger's SiLU-and-mul 2.79), two more give up to 5 × (sgl_kernel's GELU-and-mul
3.09). That is an honest choice, and nobody's speed comes from it. What is further off computes something else or in too
few bits (sgl_kernel's RoPE in bf16, 17432 ×), and is compared with nothing. Ours is held to the bound itself.
"""

RIVALS = ("peer", "compile", "eager")
"""The kinds of entries that compute what ours does. A baseline computes less, and a plain call of ours is ours."""


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

    def beside(self, other: Entry) -> tuple[Times, Times] | None:
        """The times of this one and of another in the same mode: in a graph where both have one, else launched."""
        for mine, others in ((self.graph, other.graph), (self.launch, other.launch)):
            if mine is not None and others is not None:
                return mine, others
        return None

    @property
    def error(self) -> float:
        """The largest share of the error budget that an output uses; 0 where nothing was judged."""
        return max(self.budget_used.values(), default=0.0)

    @property
    def comparable(self) -> bool:
        """Whether it was measured, and its result is off by no more than honest rounding explains."""
        return self.outcome == "measured" and self.error <= ANOTHER_ROUNDING

    @property
    def fault(self) -> str:
        """What is wrong with it as the target, whatever its time; empty for a result within its error budget."""
        if self.outcome == "failed":
            return self.message
        return f"wrong result, {self.error:.4g} of its error budget" if self.error > 1 else ""


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

    def best_rival(self) -> Entry | None:
        """Return the fastest of the others that compute the same, and compute it right but for honest rounding."""
        timed = [
            (times.median, entry)
            for entry in self.entries[1:]
            if entry.kind in RIVALS and entry.comparable and (times := entry.best()) is not None
        ]
        return min(timed, key=lambda pair: pair[0], default=(0.0, None))[1]

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
    _time(shape, calls, modes, timer, ceilings, rounds)
    _derive(shape, ceilings)
    return shape


def _prepare(
    implementation: Implementation, op: Op, sets: Sequence[Case], timer: Timer
) -> tuple[Entry, list[Call] | None]:
    """Judge on the first input set, and make the calls to time; an in-place call spoils only its own set of copies."""
    entry = Entry(implementation.name, implementation.kind)
    try:
        if implementation.judged:
            outputs = outputs_of(op, sets[0], implementation.call)
            if not getattr(implementation.call, "own_randomness", False):
                entry.budget_used = used(op, sets[0], outputs)
            del outputs
        calls = [implementation.timed(case) for case in sets]
        entry.peak_bytes = timer.peak_bytes(calls[0])
    except Unclaimed as reason:
        entry.outcome, entry.message = "unsupported", str(reason)
    except Exception as error:  # whatever a library raises is its entry's outcome, not the run's end
        entry.outcome, entry.message = "failed", _short(error)
    return entry, calls if entry.outcome == "measured" else None


def used(op: Op, case: Case, outputs: Tensors) -> dict[str, float]:
    """Return the largest share of the error budget that each output uses, as a number that JSON has."""
    return {name: min(share, WRONG) for name, share in shares(op, case, outputs).items()}


def _time(
    shape: Shape,
    calls: Mapping[str, list[Call]],
    modes: Sequence[Mode],
    timer: Timer,
    ceilings: Ceilings,
    rounds: int,
) -> None:
    """Let all take turns for some rounds, in each mode; what fails in one round is left out of the rest."""
    samples: dict[Mode, dict[str, list[list[float]]]] = {mode: {name: [] for name in calls} for mode in modes}
    copies, products = [], []
    many_operations = shape.flops / shape.bytes_moved > ceilings.gemm / ceilings.copy
    for _ in range(rounds):
        copies.append(timer.samples(ceilings.copy_calls, "launch"))
        if many_operations and ceilings.gemm_calls:
            products.append(timer.samples(ceilings.gemm_calls, "launch"))
        for mode in modes:
            for name in list(samples[mode]):
                try:
                    samples[mode][name].append(timer.samples(calls[name], mode))
                except Exception as error:  # capture is refused, memory runs out
                    _leave_out(shape, name, mode, error, samples)
    shape.copy = Times.of(copies)
    shape.product = Times.of(products) if products else None
    for mode, measured in samples.items():
        for name, one in measured.items():
            entry = shape.entry(name)
            assert entry is not None
            setattr(entry, mode, Times.of(one))


def _leave_out(
    shape: Shape, name: str, mode: Mode, error: Exception, samples: dict[Mode, dict[str, list[list[float]]]]
) -> None:
    """Drop what failed from the mode that it failed in; what cannot even be launched has failed altogether."""
    entry = shape.entry(name)
    assert entry is not None
    entry.message = f"{mode}: {_short(error)}"
    if mode == "launch":
        entry.outcome = "failed"
    for left in samples if mode == "launch" else (mode,):
        samples[left].pop(name, None)


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
    if ours.fault:
        return Judged(term, "not judged", None, None, "", f"{ours.name}: {ours.fault}")
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
    other = shape.best_rival() if term.against == BEST_PEER else shape.entry(term.against)
    pair = ours.beside(other) if other is not None and other.comparable else None
    if other is None or pair is None:
        lacking = "is wrong" if other is not None and other.error > ANOTHER_ROUNDING else "was not measured"
        return Judged(term, "not judged", None, None, "", f"{term.against} {lacking}")
    mine, others = (one.rounds for one in pair)
    return judge(term, noise, [one / two for one, two in zip(mine, others, strict=True)], other.name)


def free() -> None:
    """Give the memory of one shape back before the next is made."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
