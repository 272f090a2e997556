"""Hold one op to its budget: by time on a card that has one, by counted bytes in Triton's interpreter."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from gaugeblock.conformance.bench.baselines import baselines
from gaugeblock.conformance.bench.budgets import BEST_PEER, Budget, Term, judge
from gaugeblock.conformance.bench.ceilings import measure_ceilings
from gaugeblock.conformance.bench.implementations import Implementation, load_peers, own
from gaugeblock.conformance.bench.measure import Entry, free, hold, measure, used
from gaugeblock.conformance.bench.timing import Timer
from gaugeblock.conformance.bench.traffic import composition_bytes, interpreted_bytes
from gaugeblock.conformance.bench.workloads import WORKLOADS, Workload
from gaugeblock.fixtures.targets.kernels import REFERENCE, KernelTarget
from gaugeblock.kernels.contract import Op, Tensors

ROUNDS = 3
COUNTED_ROWS = 8  # rows of the counted call: few, since the interpreter runs them one program after the other


@dataclass
class Holding:
    """What was measured, what of it is wrong, over budget or too noisy to say, and why nothing could be counted."""

    wrong: list[str] = field(default_factory=list)
    over: list[str] = field(default_factory=list)
    noisy: list[str] = field(default_factory=list)
    evidence: list[dict[str, Any]] = field(default_factory=list)
    uncounted: str = ""

    def judge(self, label: str, entry: Entry) -> None:
        """Keep what is wrong with the target: no time and no count makes up for it."""
        if entry.fault:
            self.wrong.append(f"{label}: {entry.fault}")

    def take(self, label: str, term: Term, verdict: str, value: float | None, reason: str) -> None:
        """Keep one verdict."""
        shown = "nothing" if value is None else f"{value:.3f}"
        self.evidence.append({"shape": label, "gate": str(term), "value": value, "verdict": verdict, "reason": reason})
        if verdict == "missed":
            self.over.append(f"{label}: {term}, measured {shown}")
        elif verdict != "met":
            self.noisy.append(f"{label}: {reason}")


def hold_to_times(
    kernels: KernelTarget, op: Op, budgets: dict[str, Budget], timer: Timer, device: str, shapes: tuple[Workload, ...]
) -> Holding:
    """Time the shapes of an op that have a budget, beside what their gates are held against."""
    found = Holding()
    ceilings = measure_ceilings(timer, device)
    for workload in shapes:
        budget = budgets.get(workload.name)
        if workload.op != op.name or budget is None:
            continue
        shape = measure(workload, op, _contestants(kernels, op, budget), timer, ceilings, device, rounds=ROUNDS)
        hold(shape, budget, ceilings)
        assert shape.gate is not None
        found.judge(workload.name, shape.entries[0])
        found.take(workload.name, budget.gate, shape.gate.verdict, shape.gate.value, shape.gate.reason)
        free()
    return found


def budgeted(op: Op, budgets: dict[str, Budget]) -> tuple[Workload, ...]:
    """Return the timed shapes of an op that have a budget."""
    return tuple(workload for workload in WORKLOADS if workload.op == op.name and workload.name in budgets)


def _contestants(kernels: KernelTarget, op: Op, budget: Budget) -> list[Implementation]:
    """Return the target and what its gate divides by."""
    ours = own(kernels, op)[0]
    against = budget.gate.against
    if not against:
        return [ours]
    others = [*load_peers().of(op), *baselines(op)]
    return [ours, *(o for o in others if o.name == against or (against == BEST_PEER and o.kind != "baseline"))]


def hold_to_bytes(kernels: KernelTarget, op: Op, budget: Budget) -> Holding:
    """Count the bytes of one call, its kernels' in the interpreter and PyTorch's around them, over the modelled ones.

    Nothing is judged of a foreign function that launches no Triton kernel: its bytes can't be counted.
    """
    found = Holding()
    case = op.make(COUNTED_ROWS, op.sizes.usual, _dtype(op), 22)
    returned: list[Tensors] = []
    with interpreted_bytes() as kernel:
        around = composition_bytes(lambda *_, **__: returned.append(kernels.call(op, case.inputs, case.params)), case)
    if not kernel.launches and kernels.name != REFERENCE:
        found.uncounted = f"{kernels.name}.{op.name} runs no kernel in Triton's interpreter: its bytes can't be counted"
        return found
    found.judge(case.label, Entry(kernels.name, "ours", budget_used=used(op, case, returned[0])))
    value = (kernel.total + around.total) / op.bytes_moved(case)
    judged = judge(budget.gate, budget.noise, [value])
    found.take(case.label, budget.gate, judged.verdict, value, judged.reason)
    return found


def _dtype(op: Op) -> torch.dtype:
    return torch.bfloat16 if torch.bfloat16 in op.dtypes else op.dtypes[0]
