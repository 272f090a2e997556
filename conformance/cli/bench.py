"""``gaugeblock bench``: measurements of speed and memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from gaugeblock.fixtures.errors import EnvironmentFault, KitError, legal_name

OUT = Path("gaugeblock-out")


@click.group("bench")
def bench() -> None:
    """Measure speed and memory, beside what everybody else ships."""


@bench.command("kernels")
@click.option("--op", "op_name", metavar="NAME", help="one op alone")
@click.option("--kernels", "module", metavar="MODULE", help="your module in place of the reference kernels")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=OUT, show_default=True)
@click.option("--quick", is_flag=True, help="fewer shapes and rounds: a look, not a verdict")
@click.option("--no-peers", is_flag=True, help="only the target, PyTorch eager and the baselines")
def kernels_command(op_name: str | None, module: str | None, out: Path, quick: bool, no_peers: bool) -> int:
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

    if op_name is not None:
        legal_name("op", op_name, load_contracts())
    kernels = load_kernels(module)
    if not torch.cuda.is_available():
        raise EnvironmentFault(
            "times need an NVIDIA GPU, and this PyTorch sees none; without one, `gaugeblock verify --layer kernels` "
            "holds the kernels to everything but time"
        )
    chosen = list(workloads(op_name, quick=quick))
    if not chosen:
        raise KitError(f"{op_name} is not among the timed shapes")
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


def _torch() -> Any:
    """Return the module torch, where it and triton are installed."""
    try:
        import torch
        import triton  # noqa: F401 # only whether it is there
    except ModuleNotFoundError as error:
        raise EnvironmentFault(f"needs {error.name}: pip install 'gaugeblock[gpu]'") from error
    return torch
