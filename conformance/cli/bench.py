"""``gaugeblock bench``: measurements of speed and memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from gaugeblock.conformance.cli.bench_similarity import similarity_command
from gaugeblock.conformance.out import prepare_out
from gaugeblock.fixtures.errors import EnvironmentFault, KitError, legal_name

OUT = Path("gaugeblock-out")


@click.group("bench")
def bench() -> None:
    """Measure speed and memory, beside what everybody else ships."""


@bench.command("kernels")
@click.option("--op", "ops", multiple=True, metavar="NAME", help="this op alone; repeatable")
@click.option("--kernels", "module", metavar="MODULE", help="your module in place of the reference kernels")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=OUT, show_default=True)
@click.option("--quick", is_flag=True, help="fewer shapes and rounds: a look, not a verdict")
@click.option("--no-peers", is_flag=True, help="only the target, PyTorch eager and the baselines")
def kernels_command(ops: tuple[str, ...], module: str | None, out: Path, quick: bool, no_peers: bool) -> int:
    """Time the fused kernels beside eager, torch.compile and the installed peers, on one GPU in one run.

    Writes bench-kernels.txt, bench-kernels.json and roofline.svg. Every implementation is judged by its contract at the
    timed shape first. Exit code 1: a gate is missed, a result is wrong, or a time is faster than the card.
    """
    torch = _torch()
    from gaugeblock.conformance.bench.implementations import Peers, load_peers
    from gaugeblock.conformance.bench.run import run
    from gaugeblock.conformance.bench.table import render
    from gaugeblock.conformance.bench.timing import ROUNDS, GpuTimer
    from gaugeblock.conformance.bench.workloads import workloads
    from gaugeblock.fixtures.targets.kernels import load_kernels
    from gaugeblock.kernels.contract import load_contracts

    for name in ops:
        legal_name("op", name, load_contracts())
    chosen = list(workloads(ops, quick=quick))
    if untimed := sorted(set(ops) - {workload.op for workload in chosen}):
        raise KitError(f"no timed shape of {', '.join(untimed)}{' with --quick' if quick else ''}")
    kernels = load_kernels(module)
    if not torch.cuda.is_available():
        raise EnvironmentFault(
            "times need an NVIDIA GPU, and this PyTorch sees none; without one, `gaugeblock verify --layer kernels` "
            "holds the kernels to everything but time"
        )
    prepare_out(out)
    peers = Peers({}, {}, {}) if no_peers else load_peers()
    report = run(
        kernels,
        chosen,
        peers,
        GpuTimer(),
        device="cuda",
        out=out,
        rounds=3 if quick else ROUNDS,
        say=lambda line: click.echo(line, err=True),
    )
    click.echo(render(report))
    click.echo(f"\nwritten: {out}/bench-kernels.txt, .json and roofline.svg", err=True)
    return 1 if report.problems() else 0


@bench.command("prefill")
@click.option("--model", type=click.Path(file_okay=False, path_type=Path), help="a Hugging Face folder; default: tiny")
@click.option("--shape", metavar="NAME", help="random weights in the shape of smollm2-135m or smollm2-1.7b")
@click.option("--tokens", type=click.IntRange(2), default=2000, show_default=True, help="length of the prompt")
@click.option("--chunk", "chunks", type=click.IntRange(1), multiple=True, default=(128, 512), show_default=True)
@click.option("--window", "windows", type=click.IntRange(1), multiple=True, default=(256, 1024), show_default=True)
@click.option("--tier", "tiers", type=click.Choice(["host", "disk"]), multiple=True, default=("host", "disk"))
@click.option("--dtype", default="fp32", show_default=True, metavar="NAME", help="fp32 or bf16")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=OUT, show_default=True)
def prefill_command(
    model: Path | None,
    shape: str | None,
    tokens: int,
    chunks: tuple[int, ...],
    windows: tuple[int, ...],
    tiers: tuple[str, ...],
    dtype: str,
    rounds: int,
    out: Path,
) -> int:
    """Sweep chunk size × hot window × tier of chunked prefill: time to first token, KV on the device, bytes moved.

    On a GPU where there is one. Writes bench-prefill.txt, .json and .svg. Exit code 1: a way gave another distribution
    than one shot, or kept more KV on the device than its window and chunk.
    """
    torch = _torch()
    from gaugeblock.conformance.bench.prefill.copies import measure_copies
    from gaugeblock.conformance.bench.prefill.models import load
    from gaugeblock.conformance.bench.prefill.report import Report, render, write
    from gaugeblock.conformance.bench.prefill.sweep import Point, grid, sweep
    from gaugeblock.fixtures.embedded import tiny_model

    if model is not None and shape is not None:
        raise KitError("give --model or --shape, not both")
    prepare_out(out)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    threads = torch.get_num_threads()
    processor = f"CPU, {threads} thread{'s' * (threads > 1)}"
    machine = torch.cuda.get_device_name() if device == "cuda" else processor
    loaded = load(model or tiny_model(), shape, dtype, device)
    most = loaded.config.max_position_embeddings
    if tokens > most:
        raise KitError(f"--tokens {tokens} is more than the model's {most} positions")
    ids = torch.randint(loaded.config.vocab_size, (1, tokens), generator=torch.Generator().manual_seed(0)).to(device)
    points: list[Point] = []
    copies = measure_copies(loaded, tokens) if device == "cuda" else None
    name = shape or (model or tiny_model()).name

    def report(complete: bool) -> Report:
        return Report(name, machine, dtype, tokens, rounds, points, complete, copies)

    def done(point: Point) -> None:
        click.echo(f"{point.setting.label}: {1e3 * point.seconds[0]:.1f} ms", err=True)
        points.append(point)
        write(out, report(complete=False))

    sweep(loaded, ids, list(grid(tokens, chunks, windows, tiers)), rounds, done)
    write(out, report(complete=True))
    click.echo(render(report(complete=True)))
    click.echo(f"\nwritten: {out}/bench-prefill.txt, .json and .svg", err=True)
    return 1 if report(complete=True).problems() else 0


bench.add_command(similarity_command)


def _torch() -> Any:
    """Return the module torch, where it and triton are installed."""
    try:
        import torch
        import triton  # noqa: F401 # only whether it is there
    except ModuleNotFoundError as error:
        raise EnvironmentFault(f"needs {error.name}: pip install 'gaugeblock[gpu]'") from error
    return torch
