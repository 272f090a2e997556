"""The separation table as text and JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gaugeblock.conformance.bench.similarity.separation import COSINE, ORDERS, FalseAlarms, Row
from gaugeblock.conformance.versions import version_of
from gaugeblock.fixtures.similarity.gates import Gate
from gaugeblock.fixtures.similarity.sequential import ALPHA
from gaugeblock.fixtures.watch.rounds import SIZE

GOAL, MOST = 500, 2000  # positions to tell a fault: the goal, and the most


@dataclass(frozen=True)
class Report:
    """One table. ``gate`` is the statistical one with the limits of all prompts' null."""

    model: Mapping[str, Any]
    prompts: Mapping[str, Any]
    provenance: Mapping[str, Any]
    gate: Gate
    rows: list[Row]
    alarms: FalseAlarms
    seconds: float

    def problems(self) -> list[str]:
        """What makes the command fail: a variant that is not told for what it is, or too late."""
        found = []
        for row in self.rows:
            if not row.told:
                said = " and ".join(fold.outcome for fold in row.folds)
                found.append(f"{row.name}: {'right' if row.right else 'a fault'}, and the gate says {said}")
            if not row.right and (row.needed is None or row.needed[1] > MOST):
                found.append(f"{row.name}: not told within {MOST} positions in each of {ORDERS} orders")
        return found

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "schema_version": 1,
            "kit": {"name": "gaugeblock", "version": version_of("gaugeblock")},
            "model": dict(self.model),
            "prompts": dict(self.prompts),
            "provenance": dict(self.provenance),
            "gate": asdict(self.gate),
            "rows": [_row_json(row) for row in self.rows],
            "false_alarms": asdict(self.alarms),
            "alpha": ALPHA,
            "problems": self.problems(),
            "seconds": round(self.seconds, 1),
            "footer": {"complete": True},
        }


def _row_json(row: Row) -> dict[str, Any]:
    return {
        "name": row.name,
        "right": row.right,
        "told": row.told,
        "cosine": row.cosine,
        "fp32_gate": row.exact.outcome,
        "statistical_gate": [asdict(fold) for fold in row.folds],
        "positions_needed": None if row.needed is None else {"median": row.needed[0], "most": row.needed[1]},
        "watch_rounds": None if row.rounds is None else {"median": row.rounds[0], "most": row.rounds[1]},
        "similarity": row.similarity.describe(),
    }


def render(report: Report) -> str:
    """Return the table."""
    gate, alarms = report.gate, report.alarms
    lines = [
        f"{report.model['name']} ({report.model['digest'][:12]}…) on {report.provenance['device']}, torch "
        f"{report.provenance['torch']}; {report.prompts['count']} prompts, {report.prompts['positions']} positions, "
        f"teacher-forced, against plain fp32; {report.seconds:.0f} s",
        f"statistical gate, by the null of all prompts: worst prompt above {gate.worst_prompt}, first percentile above "
        f"{gate.tail:.3f}, mean of the lowest 1% above {gate.shortfall:.3f}; the verdicts are by the null of the other",
        "half of the prompts, once each way. needed: positions until the sequential test speaks, median and most of "
        f"{ORDERS} random orders, α = {ALPHA:g}; rounds: of {SIZE} positions until gaugeblock watch has confirmed it",
        "",
        f"{'':24} {'overlap':>7} {'worst':>6} {'p1':>6} {'low 1%':>6} {'min':>6} {'KL mean':>8} {'KL max':>8} "
        f"{'top-1':>6} {'flips':>7} {'cosine':>6} {'> .95':>6} {'fp32':>7} {'statistical':>13} {'needed':>11} "
        f"{'rounds':>9}",
    ]
    for right, title in ((True, "right"), (False, "faults")):
        lines += [f"-- {title}", *(_line(row) for row in report.rows if row.right == right)]
    lines += [
        "",
        f"false alarms: {alarms.alarms} of {alarms.comparisons} comparisons of a right variant with fp32 (95%: "
        f"{100 * alarms.low:.2f} to {100 * alarms.high:.2f}%): {len(alarms.by_variant)} variants, each judged on a",
        "random half of the prompts by the null of the other half, "
        f"{alarms.comparisons // len(alarms.by_variant)} random splits. Halves of different splits share prompts.",
        "In use null and engine have the same prompts: benchmarks/similarity_alarms.py measures that.",
        "",
        *(report.problems() or ["every right variant passes, every fault fails"]),
    ]
    return "\n".join(lines)


def _line(row: Row) -> str:
    s = row.similarity
    said = "/".join({"passed": "pass", "failed": "fail", "inconclusive": "open"}[fold.outcome] for fold in row.folds)
    needed, rounds = ("" if row.right else _span(span) for span in (row.needed, row.rounds))
    return (
        f"{row.name:24} {s.overlap:7.4f} {s.worst_prompt.value:6.4f} {s.tail.value:6.3f} {s.shortfall.value:6.3f} "
        f"{s.lowest.value:6.3f} {s.kl_mean:8.1e} {s.kl_max.value:8.1e} {s.top1:6.3f} {s.flips:7.4f} {row.cosine:6.3f} "
        f"{'pass' if row.cosine > COSINE else 'fail':>6} {row.exact.outcome.removesuffix('ed'):>7} {said:>13} "
        f"{needed:>11} {rounds:>9}"
    )


def _span(span: tuple[int, int] | None) -> str:
    return "never" if span is None else f"{span[0]} ({span[1]})"


def write(folder: Path, report: Report) -> None:
    """Write bench-similarity.txt and .json; ``folder`` exists."""
    (folder / "bench-similarity.txt").write_text(render(report) + "\n", encoding="utf-8")
    (folder / "bench-similarity.json").write_text(
        json.dumps(report.as_json(), indent=1, allow_nan=False) + "\n", encoding="utf-8"
    )
