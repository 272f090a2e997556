"""The report as text: one block a shape, ours first, and whether its gate and goal are met."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gaugeblock.conformance.bench.budgets import Judged
from gaugeblock.conformance.bench.measure import ANOTHER_ROUNDING, Entry, Shape
from gaugeblock.conformance.bench.memory import Memory
from gaugeblock.conformance.bench.timing import Times

if TYPE_CHECKING:
    from gaugeblock.conformance.bench.run import Report

WIDTH = 118


def render(report: Report) -> str:
    """Return the tables, the verdicts and the problems."""
    ceilings = report.ceilings.as_json()
    lines = [
        f"{report.card}; torch {report.environment['torch']}, triton {report.environment['triton']}; {report.module}",
        f"in-run ceilings: copy {ceilings['copy_gb_s']:.0f} GB/s, bf16 matrix product {ceilings['bf16_tflop_s']:.0f} "
        f"TFLOP/s, int8 {ceilings['int8_top_s'] or '—'} TOP/s",
        "R: modelled bytes a second ÷ the copy's; GEMM: operations a second ÷ the matrix product's; error: the largest",
        f"share of the error budget; above {ANOTHER_ROUNDING:g}, which no rounding explains, compared with nothing.",
        "MiB: the call's peak above its inputs. µs a call (p10…p90 over all rounds); graph: replayed from a",
        "CUDA graph, as decode runs; × ours: both in a graph, or both launched where one cannot be captured.",
    ]
    versions = ", ".join(f"{name} {version}" for name, version in report.peers.versions.items())
    lines += [f"peers: {versions or 'none'}", *(f"  {n}: {why}" for n, why in report.peers.missing.items())]
    if not report.budgets:
        lines.append(f"{report.card} has no budgets: nothing is gated")
    for shape in report.shapes:
        lines += ["", *_shape(shape)]
    lines += ["", *_summary(report.shapes)]
    if report.memory:
        lines += ["", *_memory(report.memory)]
    lines += [f"left out: {name}: {why}" for name, why in report.left_out.items()]
    lines += ["", *(report.problems() or ["no problems"])]
    if not report.complete:
        lines.append("INCOMPLETE: the run is not over")
    return "\n".join(lines)


def _shape(shape: Shape) -> list[str]:
    sides = (("gate", shape.gate), ("goal", shape.goal))
    verdicts = "   ".join(_verdict(name, judged) for name, judged in sides if judged)
    names = f"{'R':>6} {'GEMM':>6} {'TFLOP/s':>8} {'× ours':>7} {'error':>7} {'MiB':>7}"
    lines = [
        f"{shape.op} {shape.label} {shape.dtype}   {verdicts}",
        f"  {'':20} {'launch µs':28} {'graph µs':26} {names}",
    ]
    return lines + [_entry(entry, shape.entries[0], shape.flops) for entry in shape.entries]


def _verdict(name: str, judged: Judged) -> str:
    value = "" if judged.value is None else f" {judged.value:.3f}"
    against = f" ({judged.against})" if judged.against and judged.against != judged.term.against else ""
    why = f": {judged.reason[:60]}" if judged.reason else ""
    return f"{name} {judged.term}{against}:{value} {judged.verdict.upper()}{why}"


def _entry(entry: Entry, ours: Entry, flops: int) -> str:
    if entry.outcome in ("unsupported", "failed"):
        return f"  {entry.name:20} {entry.outcome}: {entry.message}"[:WIDTH]
    times = entry.best()
    pair = entry.beside(ours)
    relative = f"{pair[0].median / pair[1].median:7.3f}" if pair else f"{'—':>7}"
    rate = "—" if times is None else f"{flops / times.median / 1e6:.1f}"
    error = max(entry.budget_used.values(), default=None)
    cells = (
        f"  {entry.name:20} {_times(entry.launch):28} {_times(entry.graph):26}",
        f"{_number(entry.r)} {_number(entry.gemm)} {rate:>8} {relative}",
        f"{_number(error, 7)} {'—' if entry.peak_bytes is None else f'{entry.peak_bytes / 2**20:.1f}':>7}",
    )
    return " ".join(cells) + (f"  {entry.outcome}: {entry.message}" if entry.message else "")


def _times(times: Times | None) -> str:
    return "—" if times is None else f"{times.median:.2f} ({times.low:.2f}…{times.high:.2f})"


def _number(value: float | None, width: int = 6) -> str:
    return f"{'—':>{width}}" if value is None else f"{value:{width}.3f}"


def _summary(shapes: list[Shape]) -> list[str]:
    """One line a shape: the verdicts, ours and the best of the others, which may be one that no graph could hold."""
    lines = [f"{'op and shape':44} {'ours µs':>9} {'best other µs':>26}  gate           goal"]
    for shape in shapes:
        ours = shape.entries[0].best()
        best = shape.best_rival()
        own = "—" if ours is None else f"{ours.median:.2f}"
        rival = "none" if best is None or (times := best.best()) is None else f"{best.name} {times.median:.2f}"
        rival += " launch" if best is not None and best.graph is None and shape.mode == "graph" else ""
        gate, goal = (judged.verdict if judged else "none" for judged in (shape.gate, shape.goal))
        lines.append(f"{shape.op + ' ' + shape.label:44} {own:>9} {rival:>26}  {gate:14} {goal}")
    counts = {n: sum(s.gate is not None and s.gate.verdict == n for s in shapes) for n in ("met", "missed")}
    goals = sum(s.goal is not None and s.goal.verdict == "met" for s in shapes)
    lines.append(f"gates met: {counts['met']}, missed: {counts['missed']}; goals met: {goals}; shapes: {len(shapes)}")
    return lines


def _memory(found: list[Memory]) -> list[str]:
    lines = [
        "memory: the peak that a call holds above its inputs, and the bytes that it moves (model; eager operator by",
        f"operator), MiB\n{'op and shape':44} {'fused peak':>11} {'eager peak':>11} {'fused moves':>12} "
        f"{'eager moves':>12} {'ratio':>6} {'operators':>10}",
    ]
    for one in found:
        peaks = [f"{'—' if peak is None else f'{peak / 2**20:.1f}':>11}" for peak in (one.fused_peak, one.eager_peak)]
        moved = (
            f"{one.fused_bytes / 2**20:12.1f} {one.eager_bytes / 2**20:12.1f} {one.eager_bytes / one.fused_bytes:6.2f}"
        )
        lines.append(f"{one.op + ' ' + one.label:44} {peaks[0]} {peaks[1]} {moved} {one.eager_operators:10}")
    return lines
