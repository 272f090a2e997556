"""The kernels on a GPU, in one run: all checks, all mutants, then latency against eager, torch.compile and the chip.

``python benchmarks/kernels_gpu.py [--out DIR] [--sweep] [--no-mutants]`` from a checkout; the package need not be
installed. Writes ``kernels.txt`` and ``kernels.json``. Exit code 1: a check failed, a mutant survived, or a time lies
below what the chip can do, which is an error of the measurement.

R is the modelled bytes a second (each input read once, each output written once) over an in-run copy's.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import traceback
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
SHAPES = (
    ("add_rmsnorm", 16384, 4096),
    ("add_rmsnorm", 4096, 8192),
    ("add_rmsnorm", 64, 4096),
    ("silu_and_mul", 8192, 14336),
    ("silu_and_mul", 64, 14336),
)
DECODE_ROWS = 64  # up to here a kernel is timed inside a graph as well
CEILING = 1.05  # of the copy: another proportion of reads to writes may be a little faster than half and half
ITEMSIZE = 2  # bf16


def main(argv: list[str]) -> int:
    """Run, write both files, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("gaugeblock-out"))
    parser.add_argument("--sweep", action="store_true", help="time other tiles and variants too")
    parser.add_argument("--no-mutants", action="store_true")
    options = parser.parse_args(argv)
    if not torch.cuda.is_available():
        parser.exit(4, "this benchmark needs an NVIDIA GPU\n")
    make_importable()
    options.out.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {"schema_version": 1, "card": torch.cuda.get_device_name(), "torch": torch.__version__}
    steps = {"checks": checks, "latency": partial(latency, sweep=options.sweep)}
    if not options.no_mutants:
        steps["mutants"] = mutants
    for name, step in steps.items():
        begin = time.monotonic()
        try:
            report |= step()
        except Exception as error:  # the other steps still say something
            traceback.print_exc()
            report.setdefault("errors", []).append(f"{name}: {type(error).__name__}: {error}")
        print(f"{name}: {time.monotonic() - begin:.0f} s", flush=True)
        write(options.out, report)
    print(table(report))
    return 1 if problems(report) else 0


def make_importable() -> None:
    """Let ``gaugeblock`` be this checkout where it is not installed: a folder with a link of that name."""
    try:
        import gaugeblock.kernels  # noqa: F401 # only whether it is there
    except ModuleNotFoundError:
        namespace = Path(tempfile.mkdtemp(prefix="gaugeblock-path-"))
        (namespace / "gaugeblock").symlink_to(ROOT)
        sys.path.insert(0, str(namespace))


def checks() -> dict[str, Any]:
    """Run all checks."""
    from gpu_correctness import run_checks

    return {"failed_checks": run_checks()}


def mutants() -> dict[str, Any]:
    """Run all mutants."""
    from gpu_correctness import run_mutants

    return {"mutants": run_mutants()}


def latency(*, sweep: bool) -> dict[str, Any]:
    """Time every shape; ours is judged by its contract at that shape first."""
    from gpu_timing import copy_ceiling

    copy = copy_ceiling()
    return {"copy_gb_s": copy / 1e9, "latency": [row for shape in SHAPES for row in time_shape(*shape, copy, sweep)]}


def time_shape(op_name: str, rows: int, hidden: int, copy: float, sweep: bool) -> list[dict[str, Any]]:
    """Return one entry an implementation: times in microseconds, R, share of the error budget."""
    from gpu_timing import rotation

    from gaugeblock.kernels.contract import load_contracts

    op = load_contracts()[op_name]
    modelled = op.bytes_moved(rows, hidden, ITEMSIZE)
    sets = [inputs(op_name, rows, hidden) for _ in range(rotation(modelled))]
    torch.compiler.reset()
    implementations = {"ours": op.kernel, "eager": op.eager, "torch.compile": torch.compile(op.eager, dynamic=False)}
    entries = [measure(name, function, op, sets, copy) for name, function in implementations.items()]
    return entries + (sweep_shape(op, sets, copy) if sweep else [])


def inputs(op_name: str, rows: int, hidden: int) -> dict[str, torch.Tensor]:
    """Return bf16 inputs made on the GPU; correctness elsewhere uses data made on the CPU."""
    make = partial(torch.randn, dtype=torch.bfloat16, device="cuda")
    if op_name == "silu_and_mul":
        return {"x": make(rows, 2 * hidden)}
    return {"x": make(rows, hidden), "residual": make(rows, hidden), "weight": make(hidden)}


def measure(name: str, function: Any, op: Any, sets: list[dict[str, torch.Tensor]], copy: float) -> dict[str, Any]:
    """Judge an implementation on the first input set, then time it over all."""
    from gpu_correctness import largest_share
    from gpu_timing import time_graph, time_launches

    from gaugeblock.kernels.contract import Case

    rows, hidden = sets[0]["x"].shape[0], sets[0]["x"].shape[1] // (2 if op.name == "silu_and_mul" else 1)
    params = {"eps": 1e-6} if op.name == "add_rmsnorm" else {}
    share = largest_share(op, Case("", sets[0], params), op.named(function(*sets[0].values(), **params)))
    calls = [partial(function, *tensors.values(), **params) for tensors in sets]
    launch = time_launches(calls)
    graph = time_graph(calls) if rows <= DECODE_ROWS else None
    best = graph or launch
    r = op.bytes_moved(rows, hidden, ITEMSIZE) / (best.median * 1e-6) / copy
    return {
        "op": op.name, "shape": f"{rows}×{hidden}", "name": name, "r": r, "budget_used": share,
        "launch_us": asdict(launch), "graph_us": asdict(graph) if graph else None,
    }  # fmt: skip


def sweep_shape(op: Any, sets: list[dict[str, torch.Tensor]], copy: float) -> list[dict[str, Any]]:
    """Time the candidates of a shape."""
    from gpu_candidates import applied, candidates, persistent_candidates

    hidden = sets[0]["x"].shape[1] // (2 if op.name == "silu_and_mul" else 1)
    entries = []
    for label, tile, edits in candidates(op.name, hidden):
        with applied(op.name, tile, edits):
            entries += measured_or_none(label, op.kernel, op, sets, copy)
    for label, function in persistent_candidates(op.name, hidden):
        entries += measured_or_none(label, function, op, sets, copy)
    return entries


def measured_or_none(label: str, *arguments: Any) -> list[dict[str, Any]]:
    """Measure a candidate; one that does not compile is told and left out."""
    try:
        return [measure(f"  {label}", *arguments)]
    except Exception as error:  # register pressure, say, is a property of the candidate
        print(f"candidate {label}: {type(error).__name__}: {error}", flush=True)
        return []


def problems(report: dict[str, Any]) -> list[str]:
    """Return what makes the run fail."""
    found = list(report.get("errors", []))
    found += [f"{check_id}: {messages[0]}" for check_id, messages in report.get("failed_checks", {}).items()]
    found += [f"{name}: {outcome}" for name, outcome in report.get("mutants", {}).items() if outcome != "named"]
    for row in report.get("latency", []):
        where = f"{row['name'].strip()} {row['op']} {row['shape']}"
        if row["r"] > CEILING and row["graph_us"] is None:
            found.append(f"{where}: R {row['r']:.3f} is above what the chip can do")
        if row["name"] == "ours" and row["budget_used"] > 1:
            found.append(f"{where}: {row['budget_used']:.2f} of the error budget")
    return found


def table(report: dict[str, Any]) -> str:
    """Return the report as text."""
    killed = [outcome == "named" for outcome in report.get("mutants", {}).values()]
    lines = [f"{report['card']}, torch {report['torch']}, copy {report.get('copy_gb_s', 0):.0f} GB/s; bf16"]
    lines.append(
        f"failed checks: {len(report.get('failed_checks', {}))}; mutants killed: {sum(killed)} of {len(killed)}"
    )
    lines.append(f"{'op and shape':24} {'':28} {'launch µs (p10…p90)':24} {'graph µs':>8} {'R':>6} {'budget':>7}")
    for row in report.get("latency", []):
        launch, graph = row["launch_us"], row["graph_us"]
        spread = f"{launch['median']:.1f} ({launch['low']:.1f}…{launch['high']:.1f})"
        captured = f"{graph['median']:.2f}" if graph else "—"
        what = f"{row['op']} {row['shape']}"
        lines.append(f"{what:24} {row['name']:28} {spread:24} {captured:>8} {row['r']:6.3f} {row['budget_used']:7.3f}")
    return "\n".join([*lines, *problems(report)])


def write(folder: Path, report: dict[str, Any]) -> None:
    """Write both files; called after each step, so that a run cut short leaves what it had."""
    (folder / "kernels.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "kernels.txt").write_text(table(report) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
