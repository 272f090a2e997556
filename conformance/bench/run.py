"""The whole run: ceilings, every shape, memory, verdicts; written after each shape, so a cut run leaves what it had."""

from __future__ import annotations

import json
import platform
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from gaugeblock.conformance.bench.baselines import baselines
from gaugeblock.conformance.bench.budgets import Budget, known_cards, load_budgets
from gaugeblock.conformance.bench.ceilings import Ceilings, measure_ceilings
from gaugeblock.conformance.bench.implementations import Peers, own, warm_up
from gaugeblock.conformance.bench.measure import Shape, free, hold, measure
from gaugeblock.conformance.bench.memory import Memory, memory_of
from gaugeblock.conformance.bench.roofline import roofline
from gaugeblock.conformance.bench.table import render
from gaugeblock.conformance.bench.timing import ROUNDS, Timer
from gaugeblock.conformance.bench.workloads import Workload
from gaugeblock.conformance.versions import version_of
from gaugeblock.fixtures.targets.kernels import KernelTarget
from gaugeblock.kernels.contract import Op, load_contracts

Say = Callable[[str], None]


@dataclass
class Report:
    """What one run found."""

    card: str
    module: str
    environment: dict[str, Any]
    budgets: dict[str, Budget]
    peers: Peers
    ceilings: Ceilings
    shapes: list[Shape] = field(default_factory=list)
    memory: list[Memory] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    complete: bool = False

    def problems(self) -> list[str]:
        """Return what makes the run fail: a missed gate, a wrong result of the target, an impossible time."""
        found = [f"{name}: {why}" for name, why in self.errors.items()]
        for shape in self.shapes:
            where = f"{shape.op} {shape.label}"
            if shape.gate is not None and shape.gate.verdict == "missed":
                found.append(f"{where}: gate {shape.gate.term} missed, {shape.gate.value:.3f}")
            for entry in shape.entries:
                if entry.outcome == "impossible":
                    found.append(f"{where}: {entry.name}: {entry.message}")
                if entry.kind == "ours" and entry.fault:
                    found.append(f"{where}: {entry.name}: {entry.fault}")
        return found

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON, valid against ``schema/bench-kernels.schema.json``."""
        return {
            "schema_version": 1,
            "kit": {"name": "gaugeblock", "version": version_of("gaugeblock")},
            "card": self.card,
            "module": self.module,
            "environment": self.environment,
            "peers": {"versions": self.peers.versions, "missing": self.peers.missing},
            "ceilings": self.ceilings.as_json(),
            "budgets": "card" if self.budgets else f"none for this card; known: {', '.join(known_cards())}",
            "shapes": [shape.as_json() for shape in self.shapes],
            "memory": [asdict(memory) for memory in self.memory],
            "left_out": self.left_out,
            "errors": self.errors,
            "problems": self.problems(),
            "footer": {"complete": self.complete},
        }


def run(
    kernels: KernelTarget,
    chosen: Sequence[Workload],
    peers: Peers,
    timer: Timer,
    *,
    device: str,
    out: Path,
    rounds: int = ROUNDS,
    say: Say = print,
) -> Report:
    """Measure ``chosen`` and write ``bench-kernels.json``, ``.txt`` and ``roofline.svg`` into ``out``."""
    contracts = load_contracts()
    present = [w for w in chosen if w.op in contracts and w.op in kernels.functions]
    first = {workload.op: workload for workload in reversed(present)}
    warm_up(peers, [(contracts[name], workload) for name, workload in first.items()], device, say)
    ceilings = measure_ceilings(timer, device)
    report = Report(timer.card, kernels.name, environment(), load_budgets(timer.card), peers, ceilings)
    for workload in chosen:
        if workload not in present:
            report.left_out[workload.name] = f"{kernels.name} has no {workload.op}"
            continue
        say(f"{workload.name} …")
        try:
            _one(report, kernels, contracts[workload.op], workload, timer, device, rounds)
        except Exception as error:  # the other shapes still say something
            say(traceback.format_exc())
            report.errors[workload.name] = f"{type(error).__name__}: {error}"[:300]
        free()
        write(out, report)
    report.complete = True
    write(out, report)
    return report


def _one(
    report: Report, kernels: KernelTarget, op: Op, workload: Workload, timer: Timer, device: str, rounds: int
) -> None:
    contestants = [*own(kernels, op), *report.peers.of(op), *baselines(op)]
    shape = measure(workload, op, contestants, timer, report.ceilings, device, rounds=rounds)
    if workload.name in report.budgets:
        hold(shape, report.budgets[workload.name], report.ceilings)
    report.shapes.append(shape)
    report.memory.append(memory_of(op, workload, shape, device))


def environment() -> dict[str, Any]:
    """Return what a time depends on beside the card."""
    found = {"python": platform.python_version(), "torch": torch.__version__, "cuda": torch.version.cuda}
    return found | {"triton": version_of("triton")}


def write(folder: Path, report: Report) -> None:
    """Write all three files."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(report.as_json(), indent=1, ensure_ascii=False)
    (folder / "bench-kernels.json").write_text(text + "\n", encoding="utf-8")
    (folder / "bench-kernels.txt").write_text(render(report) + "\n", encoding="utf-8")
    (folder / "roofline.svg").write_text(roofline(report.card, report.ceilings, report.shapes), encoding="utf-8")
