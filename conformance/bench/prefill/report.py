"""The sweep as text, JSON and a plot of time against memory."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any

import torch

from gaugeblock.conformance.bench.prefill.copies import Copies
from gaugeblock.conformance.bench.prefill.sweep import Point
from gaugeblock.conformance.versions import version_of

MIB = 1 << 20


@dataclass(frozen=True)
class Report:
    """One sweep. ``machine`` is the card, or the processor; ``copies`` on a card alone."""

    model: str
    machine: str
    dtype: str
    tokens: int
    rounds: int
    points: Sequence[Point]
    complete: bool
    copies: Copies | None = None

    def problems(self) -> list[str]:
        """What makes the command fail: a wrong distribution, or more KV on the device than allowed."""
        found = ((p.setting.label, p.problem(self.dtype != "fp32")) for p in self.points)
        return [f"{label}: {why}" for label, why in found if why]

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "schema_version": 1,
            "kit": {"name": "gaugeblock", "version": version_of("gaugeblock")},
            "model": self.model,
            "machine": self.machine,
            "environment": {"python": platform.python_version(), "torch": torch.__version__},
            "dtype": self.dtype,
            "tokens": self.tokens,
            "rounds": self.rounds,
            "copies_gb_s": None if self.copies is None else asdict(self.copies),
            "points": [point.as_json() for point in self.points],
            "problems": self.problems(),
            "footer": {"complete": self.complete},
        }


def render(report: Report) -> str:
    """Return the table."""
    lines = [
        f"{report.model}, {report.dtype}, {report.tokens} tokens on {report.machine}; torch {torch.__version__}; "
        f"{'one round' if report.rounds == 1 else f'median of {report.rounds} rounds'}",
        "TTFT: until the first answer token's logits are there; CPU: what the process computed meanwhile;",
        "×: of one shot. KV: most on the device at any time; limit: its share of (window + chunk) tokens + 5%.",
        "operators: those that compute, each a launch or more. hidden: share of the transfer time behind which",
        "something was computed. off by: the next token's log-probabilities from one shot's, in nats.",
        "",
        f"{'':40} {'TTFT ms (least…most)':>26} {'×':>6} {'CPU ms':>8} {'×':>6} {'KV MiB':>8} {'limit':>6} "
        f"{'all MiB':>8} {'operators':>9} {'out MiB':>8} {'in MiB':>8} {'hidden':>6} {'off by':>8}",
    ]
    lines += [_line(point, report.points[0]) for point in report.points]
    lines += [] if report.copies is None else ["", report.copies.line()]
    lines += ["", *(report.problems() or ["no problems"])]
    if not report.complete:
        lines.append("INCOMPLETE: the sweep is not over")
    return "\n".join(lines)


def _line(point: Point, base: Point) -> str:
    median, low, high = (1e3 * seconds for seconds in point.seconds)
    share = "—" if point.kv_limit is None else f"{point.peak_kv_bytes / point.kv_limit:.3f}"
    hidden = "—" if point.overlap_efficiency is None else f"{point.overlap_efficiency:.2f}"
    return (
        f"{point.setting.label:40} {f'{median:.1f} ({low:.1f}…{high:.1f})':>26} "
        f"{point.seconds[0] / base.seconds[0]:6.2f} {1e3 * point.cpu_seconds:8.1f} "
        f"{point.cpu_seconds / base.cpu_seconds:6.2f} "
        f"{point.peak_kv_bytes / MIB:8.2f} {share:>6} "
        f"{'—' if point.peak_bytes is None else f'{point.peak_bytes / MIB:.1f}':>8} {point.operators:9d} "
        f"{point.bytes_out / MIB:8.2f} {point.bytes_in / MIB:8.2f} {hidden:>6} {point.difference:8.1e}"
    )


def write(folder: Path, report: Report) -> None:
    """Write bench-prefill.txt, .json and .svg."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bench-prefill.txt").write_text(render(report) + "\n", encoding="utf-8")
    (folder / "bench-prefill.json").write_text(json.dumps(report.as_json(), indent=1) + "\n", encoding="utf-8")
    (folder / "bench-prefill.svg").write_text(plot(report), encoding="utf-8")


WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 900, 520, 80, 60, 640, 450
COLOURS = ("#0b6e99", "#c2410c", "#15803d", "#7e22ce", "#b91c1c", "#a16207")
INK, GREY, PALE = "#374151", "#6b7280", "#e5e7eb"


def plot(report: Report) -> str:
    """Return time to first token over KV on the device, one colour a chunk size, one SVG file."""
    points = list(report.points)
    chunks = list(dict.fromkeys(point.setting.chunk for point in points))
    most_x = 1.1 * max((p.peak_kv_bytes / MIB for p in points), default=1.0)
    most_y = 1.15 * max((1e3 * p.seconds[0] for p in points), default=1.0)

    def place(point: Point) -> tuple[float, float]:
        x = LEFT + point.peak_kv_bytes / MIB / most_x * (RIGHT - LEFT)
        return x, BOTTOM - 1e3 * point.seconds[0] / most_y * (BOTTOM - TOP)

    title = f"{report.model}, {report.dtype}, {report.tokens} tokens on {report.machine}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="13" fill="{INK}"><rect width="100%" height="100%" fill="white"/>',
        f'<text x="{LEFT}" y="28" font-size="16" font-weight="bold">Chunked prefill: memory against time</text>',
        f'<text x="{LEFT}" y="47" fill="{GREY}">{escape(title)}</text>',
    ]
    for value in _ticks(most_y):
        y = BOTTOM - value / most_y * (BOTTOM - TOP)
        parts += [
            f'<line x1="{LEFT}" x2="{RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="{PALE}"/>',
            f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>',
        ]
    for value in _ticks(most_x):
        x = LEFT + value / most_x * (RIGHT - LEFT)
        parts.append(f'<text x="{x:.1f}" y="{BOTTOM + 20}" text-anchor="middle">{value:g}</text>')
    parts += [
        f'<text x="{(LEFT + RIGHT) / 2}" y="{BOTTOM + 44}" text-anchor="middle">KV on the device, MiB</text>',
        f'<text x="22" y="{(TOP + BOTTOM) / 2}" text-anchor="middle" transform="rotate(-90 22 '
        f'{(TOP + BOTTOM) / 2})">time to first token, ms</text>',
    ]
    for number, point in enumerate(points, 1):
        x, y = place(point)
        colour = COLOURS[chunks.index(point.setting.chunk) % len(COLOURS)]
        filled = colour if point.setting.window is None else "white"
        parts += [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="6" fill="{filled}" stroke="{colour}" stroke-width="2.5"/>',
            f'<text x="{x + 9:.1f}" y="{y - 6:.1f}" font-size="11">{number}</text>',
            f'<text x="{RIGHT + 24}" y="{TOP + 18 * number}" font-size="11" fill="{colour}">{number} '
            f"{escape(point.setting.label)}</text>",
        ]
    parts.append(f'<text x="{RIGHT + 24}" y="{TOP}" font-size="11" fill="{GREY}">rings: with a hot window</text>')
    return "".join([*parts, "</svg>\n"])


def _ticks(most: float) -> list[float]:
    """Return round values from 0 to ``most``, about five."""
    power = 10 ** math.floor(math.log10(most / 5))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor * 6 > most)
    return [round(step * number, 12) for number in range(int(most / step) + 1)]
