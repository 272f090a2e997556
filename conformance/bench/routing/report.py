"""What a simulation says: one row a policy, as text, JSON and a plot."""

from __future__ import annotations

import json
import platform
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from gaugeblock.conformance.bench.routing.simulate import Outcome, Setup
from gaugeblock.conformance.versions import version_of

PERCENTILES = (50, 95, 99)


@dataclass(frozen=True)
class Row:
    """One policy. Rates are of all prompt tokens, times in milliseconds, ``cost`` in microseconds a decision."""

    policy: str
    hit_rate: float
    predicted: float
    wrong: float  # predicted and not cached
    balance: float  # prefill seconds of the busiest worker by their mean
    variation: float  # their deviation by their mean
    ttft: tuple[float, ...]
    latency: tuple[float, ...]
    cost: float

    @classmethod
    def of(cls, outcome: Outcome) -> Row:
        """Sum an outcome up."""
        visits, tokens = outcome.visits, sum(visit.request.input_length for visit in outcome.visits)
        busy = [worker.busy for worker in outcome.workers]
        mean = statistics.fmean(busy) or 1.0
        return cls(
            outcome.policy,
            sum(visit.cached for visit in visits) / tokens,
            sum(visit.predicted for visit in visits) / tokens,
            sum(max(0, visit.predicted - visit.cached) for visit in visits) / tokens,
            max(busy) / mean,
            statistics.pstdev(busy) / mean,
            _percentiles([1e3 * (visit.first_token - visit.arrived) for visit in visits]),
            _percentiles([1e3 * (visit.ended - visit.arrived) for visit in visits]),
            1e6 * outcome.decision_seconds / len(visits),
        )


@dataclass(frozen=True)
class Paper:
    """A fleet that was not simulated: what its decisions cost a router. ``costs``: microseconds each, by policy."""

    workers: int
    requests_per_hour: float
    costs: dict[str, float]

    def lines(self) -> Iterator[str]:
        """Yield the share of one core that deciding takes, the rest of the router not counted."""
        yield (
            f"on paper: {self.workers} workers, {self.requests_per_hour:,.0f} requests an hour "
            f"({self.requests_per_hour / 3600:,.0f} a second); share of one core for the decisions alone"
        )
        for policy, cost in self.costs.items():
            yield f"  {policy:<16} {cost:8.1f} us a decision {self.share(policy):8.1%}"

    def share(self, policy: str) -> float:
        """Return cores."""
        return self.costs[policy] * 1e-6 * self.requests_per_hour / 3600


@dataclass(frozen=True)
class Report:
    """One run of several policies. ``settings``: what differs from the policies' defaults."""

    trace: str
    requests: int
    setup: Setup
    rows: Sequence[Row]
    paper: Paper | None = None
    settings: Mapping[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        paper = self.paper
        return {
            "schema_version": 1,
            "kit": {"name": "gaugeblock", "version": version_of("gaugeblock")},
            "environment": {"python": platform.python_version(), "machine": platform.machine()},
            "trace": self.trace,
            "requests": self.requests,
            "setup": asdict(self.setup),
            "settings": dict(self.settings),
            "percentiles": PERCENTILES,
            "policies": [asdict(row) for row in self.rows],
            "paper": None if paper is None else {**asdict(paper), "cores": {p: paper.share(p) for p in paper.costs}},
            "footer": {"complete": True},
        }


def render(report: Report) -> str:
    """Return the table."""
    setup, engine = report.setup, report.setup.engine
    return "\n".join(
        [
            f"{report.trace}: {report.requests:,} requests, {setup.speed:g} times as fast as recorded, to "
            f"{setup.workers} workers; seed {setup.seed}",
            f"a worker: prefill {engine.prefill_rate:,.0f} tokens/s, {engine.slots} decodes of "
            f"{engine.output_rate:g} tokens/s, cache {engine.cache_tokens:,} tokens",
            "hit: prompt tokens found cached; wrong: predicted and not cached; max/mean and cv: of prefill seconds by "
            "worker; times in ms",
            *([", ".join(f"{name} {value:g}" for name, value in report.settings.items())] if report.settings else []),
            "",
            f"{'policy':<16}{'hit':>7}{'wrong':>7}{'max/mean':>10}{'cv':>6}   {'TTFT p50':>9}{'p95':>9}{'p99':>9}   "
            f"{'latency p50':>11}{'p95':>9}{'p99':>9}{'decisions/s':>13}",
            *(_line(row) for row in report.rows),
            *(["", *report.paper.lines()] if report.paper else []),
        ]
    )


def markdown(report: Report) -> str:
    """Return the table for a document."""
    heads = ("policy", "hit", "wrong", "max/mean", "cv", "TTFT p50 / p95 / p99 ms", "latency p50 / p95 / p99 s")
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for row in report.rows:
        ttft = " / ".join(f"{value:,.0f}" for value in row.ttft)
        latency = " / ".join(f"{value / 1000:.1f}" for value in row.latency)
        cells = (f"{row.hit_rate:.1%}", f"{row.wrong:.1%}", f"{row.balance:.2f}", f"{row.variation:.2f}", ttft, latency)
        lines.append(f"| `{row.policy}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _line(row: Row) -> str:
    times = "".join(f"{value:9,.0f}" for value in row.ttft)
    latency = "".join(f"{value:{width},.0f}" for value, width in zip(row.latency, (11, 9, 9), strict=True))
    rate = 1e6 / row.cost if row.cost else 0.0
    return (
        f"{row.policy:<16}{row.hit_rate:7.1%}{row.wrong:7.1%}{row.balance:10.2f}{row.variation:6.2f}   {times}   "
        f"{latency}{rate:13,.0f}"
    )


def _percentiles(values: Sequence[float]) -> tuple[float, ...]:
    """Return the nearest-rank percentiles."""
    ordered = sorted(values)
    return tuple(ordered[max(0, -(-len(ordered) * share // 100) - 1)] for share in PERCENTILES)


def write(folder: Path, report: Report) -> None:
    """Write simulate.txt, .json and .svg."""
    (folder / "simulate.txt").write_text(render(report) + "\n", encoding="utf-8")
    (folder / "simulate.json").write_text(json.dumps(report.as_json(), indent=1) + "\n", encoding="utf-8")
    (folder / "simulate.svg").write_text(plot(report), encoding="utf-8")


WIDTH, TOP, STEP, NAMES, PANEL, GAP = 1000, 92, 30, 140, 240, 40
BLUE, INK, GREY, PALE = "#0b6e99", "#374151", "#6b7280", "#e5e7eb"


def plot(report: Report) -> str:
    """Return bars by policy, one SVG file: hit rate, balance, and the tail of the time to first token."""
    rows = report.rows
    panels = (
        ("prompt tokens found cached", [row.hit_rate for row in rows], "{:.1%}"),
        ("busiest worker by the mean", [row.balance for row in rows], "{:.2f}"),
        ("time to first token, p95, ms", [row.ttft[1] for row in rows], "{:,.0f}"),
    )
    height = TOP + STEP * len(rows) + 24
    title = f"{report.trace}, {report.setup.workers} workers, {report.setup.speed:g} times as fast as recorded"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
        f'font-size="13" fill="{INK}"><rect width="100%" height="100%" fill="white"/>',
        '<text x="20" y="28" font-size="16" font-weight="bold">Routing policies on a trace</text>',
        f'<text x="20" y="47" fill="{GREY}">{escape(title)}</text>',
    ]
    for number, row in enumerate(rows):
        parts.append(f'<text x="20" y="{TOP + STEP * number + 15}">{escape(row.policy)}</text>')
    for number, (head, values, shape) in enumerate(panels):
        parts += _panel(NAMES + 20 + number * (PANEL + GAP), head, values, shape)
    return "".join([*parts, "</svg>\n"])


def _panel(left: int, head: str, values: Sequence[float], shape: str) -> Iterator[str]:
    most = max(*values, 1e-9)
    room = PANEL - 50  # for the number behind the longest bar
    yield f'<text x="{left}" y="{TOP - 14}" fill="{GREY}">{escape(head)}</text>'
    yield (
        f'<line x1="{left}" x2="{left}" y1="{TOP - 4}" y2="{TOP + STEP * len(values)}" stroke="{PALE}" '
        'stroke-width="2"/>'
    )
    for number, value in enumerate(values):
        y, size = TOP + STEP * number, value / most * room
        yield f'<rect x="{left}" y="{y}" width="{size:.1f}" height="20" fill="{BLUE}"/>'
        yield f'<text x="{left + size + 6:.1f}" y="{y + 15}">{shape.format(value)}</text>'
