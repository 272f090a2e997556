"""``profile.json`` and what a person reads of it."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gaugeblock.conformance.profiling.agreement import Loss
from gaugeblock.conformance.profiling.measure import Variant, Work
from gaugeblock.conformance.profiling.operators import Row
from gaugeblock.conformance.profiling.patterns import Candidate
from gaugeblock.conformance.profiling.study import TOP, Study
from gaugeblock.conformance.versions import version_of

SCHEMA_VERSION = 1
ROWS = 14


def write_report(study: Study, out: Path) -> Path:
    """Write ``profile.json`` in one piece and return its path; a file without its footer is no report."""
    data = {
        "schema_version": SCHEMA_VERSION,
        "kit": {"name": "gaugeblock", "version": version_of("gaugeblock")},
        "environment": {"python": platform.python_version(), "torch": torch.__version__, "device": study.device},
        "source": study.source,
        "dtype": study.dtype or None,
        "workload": study.workload or None,
        "trace": study.trace.name,
        "ceilings": study.ceilings.describe() if study.ceilings else None,
        "phases": {
            n: {"wall_us": round(us, 1), "idle_share": round(study.idle[n], 4)} for n, us in study.phases.items()
        },
        "operators": [row.describe() for row in study.rows],
        "candidates": [{**c.describe(), "covered": c.op in study.covered} for c in study.candidates],
        "null_overlap_loss": study.null,
        "fused": [variant.describe() for variant in study.variants],
        "failures": study.failures,
        "notes": study.notes,
        "footer": {"complete": True},
    }
    path = out / "profile.json"
    draft = out / "profile.json.tmp"
    draft.write_text(json.dumps(data, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    draft.replace(path)
    return path


def show(study: Study, console: Console) -> None:
    """Print operators, candidates and what the fused ops changed."""
    console.print(escape(_headline(study)), soft_wrap=True)
    console.print(_operators(study))
    if study.candidates:
        console.print("\n[bold]fusion candidates[/], by what they could save at most")
        console.print(_candidates(study))
        for i, candidate in enumerate(study.candidates[:TOP]):
            console.print(f"{i + 1} is {candidate.operators.replace(' ', ', ')}", style="dim", soft_wrap=True)
    else:
        console.print("\nno composition that one of our ops covers")
    if study.variants:
        console.print("\n[bold]with the fused op in place[/]: does the model still compute the same?")
        console.print(_agreement(study.variants, study.dtype))
    timed = [variant for variant in study.variants if variant.times]
    if timed:
        by = ", ".join(dict.fromkeys(variant.implementation for variant in timed))
        console.print(f"\n[bold]measured again[/], by {escape(by)}; decode is a token")
        console.print(_times(timed, study.device != "cpu"))
    if any(share > 0.5 for share in study.idle.values()):
        console.print(
            "note: the device mostly waits for the host's launches; a server that replays CUDA graphs gains what the "
            "device's time gains",
            style="dim",
            soft_wrap=True,
        )
    for note in study.notes:
        console.print(f"note: {escape(note)}", style="dim", soft_wrap=True)
    for failure in study.failures:
        console.print(f"[bold red]failed[/] {escape(failure)}", soft_wrap=True)
    for variant in study.wrong:
        wrong = variant.agreement.worst
        console.print(
            f"[bold red]wrong[/] {' + '.join(variant.ops)}, {escape(variant.implementation)}: overlap loss "
            f"{wrong.value:.2e} at position {wrong.position}, rounding explains {wrong.limit:.2e}",
            soft_wrap=True,
        )


def _headline(study: Study) -> str:
    parts = [study.source]
    if study.workload:
        prompt, decode = study.workload["prompt_tokens"], study.workload["decode_tokens"]
        parts.append(f"{study.dtype}, {prompt} prompt and {decode} decode tokens")
    if study.ceilings:
        c = study.ceilings
        parts.append(f"{c.device}: copy {c.copy_gb_s:.0f} GB/s, {c.dtype} product {c.gemm_tflop_s:.3g} TFLOP/s")
    parts += [
        f"{name} {us / 1e3:.2f} ms" + (f" (device idle {study.idle[name]:.0%})" if study.idle[name] else "")
        for name, us in study.phases.items()
    ]
    return "\n".join(parts)


def _table(*columns: str, left: int = 1) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i < left else "right", overflow="fold")
    return table


def _operators(study: Study) -> Table:
    table = _table("operator", "launches", "self ms", "share", "MB moved", "GB/s", "roofline")
    whole = sum(row.self_us for row in study.rows) or 1.0
    for row in study.rows[:ROWS]:
        table.add_row(*_operator(row, whole))
    rest = sum(row.self_us for row in study.rows[ROWS:])
    if rest:
        table.add_row(f"{len(study.rows) - ROWS} more", "", f"{rest / 1e3:.2f}", f"{rest / whole:.1%}", "", "", "")
    return table


def _operator(row: Row, whole: float) -> tuple[str, ...]:
    name = escape(row.name if len(row.name) <= 48 else row.name[:47] + "…")
    known = row.bytes is not None and row.self_us > 0
    return (
        name,
        str(row.launches or ""),
        f"{row.self_us / 1e3:.2f}",
        f"{row.self_us / whole:.1%}",
        f"{row.bytes / 1e6:.1f}" if row.bytes is not None else "-",
        f"{row.bytes / row.self_us / 1e3:.0f}" if known and row.bytes is not None else "-",
        "-" if row.roofline is None else f"{row.roofline:.0%}",
    )


def _candidates(study: Study) -> Table:
    table = _table("", "our op", "in place of", "places", "launches", "ms", "MB moved", "saves at most ms", left=3)
    for i, candidate in enumerate(study.candidates):
        table.add_row(*_candidate(i, candidate, study.covered), style="" if i < TOP else "dim")
    return table


def _candidate(i: int, candidate: Candidate, covered: frozenset[str]) -> tuple[str, ...]:
    return (
        str(i + 1),
        candidate.op if candidate.op in covered else f"{candidate.op} (not in this version)",
        candidate.title,
        str(candidate.places),
        f"{candidate.launches} → {candidate.places}",
        f"{candidate.self_us / 1e3:.2f}",
        f"{candidate.bytes / 1e6:.1f} → {candidate.fused_bytes / 1e6:.1f}",
        f"{candidate.saving_us / 1e3:.2f}",
    )


def _agreement(variants: list[Variant], dtype: str) -> Table:
    table = _table("op", "by", "places", "overlap loss in fp32", f"in {dtype}", left=2)
    for variant in variants:
        losses = (_loss(loss) for loss in (variant.agreement.fp32, variant.agreement.own))
        table.add_row(" + ".join(variant.ops), escape(variant.implementation), str(variant.places), *losses)
    return table


def _loss(loss: Loss) -> str:
    colour = "green" if loss.right else "bold red"
    return f"[{colour}]{loss.value:.1e} {'≤' if loss.right else '>'} {loss.limit:.1e}[/]"


def _times(variants: list[Variant], on_device: bool) -> Table:
    columns = ("launches", "device ms", "peak MB") if on_device else ("calls that compute", "peak MB")
    table = _table("op", "phase", "ms before → after", "speed-up", "10th…90th percentile", *columns, left=2)
    for variant in variants:
        for i, (phase, share) in enumerate(variant.times.items()):
            cells = [
                "" if i else " + ".join(variant.ops),
                phase,
                f"{share.before_s * 1e3:.2f} → {share.after_s * 1e3:.2f}",
                "none seen" if share.noisy else f"{share.speedup:.2f} ×",
                f"{share.low:.2f}…{share.high:.2f}",
                _change(variant, partial(_launches, phase)),
            ]
            if on_device:
                cells.append(_change(variant, partial(_busy, phase)))
            table.add_row(*cells, "" if i else _change(variant, _peak))
    return table


def _launches(phase: str, work: Work) -> str:
    return str(work.launches.get(phase, "-"))


def _busy(phase: str, work: Work) -> str:
    return f"{work.busy_us[phase] / 1e3:.2f}" if phase in work.busy_us else "-"


def _peak(work: Work) -> str:
    return "-" if work.peak_bytes is None else f"{work.peak_bytes / 1e6:.1f}"


def _change(variant: Variant, text: Callable[[Work], str]) -> str:
    before, after = variant.before, variant.after
    return "-" if before is None or after is None else f"{text(before)} → {text(after)}"
