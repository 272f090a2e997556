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
                what = "right" if row.right else "a fault"
                found.append(f"{row.name}: {what}, and the gate says {row.judged.outcome}")
            if not row.right and (row.needed is None or row.needed[1] > MOST):
                found.append(f"{row.name}: not told within {MOST} positions in each of {ORDERS} orders")
        return found

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "schema_version": 2,
            "kit": {"name": "gaugeblock", "version": version_of("gaugeblock")},
            "model": dict(self.model),
            "prompts": dict(self.prompts),
            "provenance": dict(self.provenance),
            "gate": self.gate.describe(),
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
        "statistical_gate": asdict(row.judged),
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
        f"statistical gate: worst prompt above {gate.worst_prompt}, first percentile above {gate.tail:.3f}, mean of "
        f"the lowest 1% above {gate.shortfall:.3f}, worst 1% at most {gate.excess:.2f} times as far off as rounding",
        "usually is at these positions (usual); a right variant is judged by the null of all other roundings. needed: "
        f"positions until the sequential test speaks, median and most of {ORDERS} random orders, α = {ALPHA:g};",
        f"rounds: of {SIZE} positions until gaugeblock watch has confirmed it",
        "",
        f"{'':24} {'overlap':>7} {'worst':>6} {'p1':>6} {'low 1%':>6} {'usual':>6} {'min':>6} {'KL mean':>8} "
        f"{'KL max':>8} {'top-1':>6} {'flips':>7} {'cosine':>6} {'> .95':>6} {'fp32':>7} {'statistical':>11} "
        f"{'needed':>11} {'rounds':>9}",
    ]
    for right, title in ((True, "right"), (False, "faults")):
        lines += [f"-- {title}", *(_line(row) for row in report.rows if row.right == right)]
    lines += [
        "",
        f"false alarms: {alarms.alarms} of {alarms.comparisons} roundings of right variants, each judged by the null "
        f"of all others (95%: {100 * alarms.low:.2f} to {100 * alarms.high:.2f}%)",
        "",
        *(report.problems() or ["every right variant passes, every fault fails"]),
    ]
    return "\n".join(lines)


def _line(row: Row) -> str:
    s = row.similarity
    said = {"passed": "pass", "failed": "fail", "inconclusive": "open"}[row.judged.outcome]
    usual = "" if s.excess is None else f"{s.excess.value:.2f}"
    needed, rounds = ("" if row.right else _span(span) for span in (row.needed, row.rounds))
    return (
        f"{row.name:24} {s.overlap:7.4f} {s.worst_prompt.value:6.4f} {s.tail.value:6.3f} {s.shortfall.value:6.3f} "
        f"{usual:>6} {s.lowest.value:6.3f} {s.kl_mean:8.1e} {s.kl_max.value:8.1e} {s.top1:6.3f} {s.flips:7.4f} "
        f"{row.cosine:6.3f} {'pass' if row.cosine > COSINE else 'fail':>6} {row.exact.outcome.removesuffix('ed'):>7} "
        f"{said:>11} {needed:>11} {rounds:>9}"
    )


def _span(span: tuple[int, int] | None) -> str:
    return "never" if span is None else f"{span[0]} ({span[1]})"


def write(folder: Path, report: Report) -> None:
    """Write bench-similarity.txt and .json; ``folder`` exists."""
    (folder / "bench-similarity.txt").write_text(render(report) + "\n", encoding="utf-8")
    (folder / "bench-similarity.json").write_text(
        json.dumps(report.as_json(), indent=1, allow_nan=False) + "\n", encoding="utf-8"
    )
