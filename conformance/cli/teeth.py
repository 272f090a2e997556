"""``gaugeblock teeth``: prove that every planted fault is caught by the check that names it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape

from gaugeblock.conformance.check import LAYERS
from gaugeblock.conformance.out import prepare_file
from gaugeblock.conformance.teeth import SCOPES, Kill, run_matrix
from gaugeblock.conformance.verdict import EXIT_CODES, write_json
from gaugeblock.fixtures.errors import KitError, legal_name
from gaugeblock.fixtures.extras import require
from gaugeblock.fixtures.faults.record import find_fault, load_faults


@click.command()
@click.option("--layer", metavar="LAYER", help="Only the faults of one layer.")
@click.option("--fault", "ids", multiple=True, metavar="ID", help="Only this fault; repeatable.")
@click.option("--out", metavar="FILE", help="Write the matrix as JSON.")
@click.option("--jobs", type=click.IntRange(1, 64), default=2, show_default=True, help="Faults run side by side.")
@click.option(
    "--scope", type=click.Choice(list(SCOPES)), default="layer", show_default=True, help="What a fault meets."
)
def teeth(layer: str | None, ids: tuple[str, ...], out: str | None, jobs: int, scope: str) -> int:
    """Plant each fault in the reference, run the checks, and say which check killed it.

    The scope is what a fault meets besides the smoke gates of the layers that run in the process where it is
    planted: `named` the check that names it, `layer` all checks of its layer, `full` every check of every layer.
    A fault that needs hardware which is not here is named and not run.
    Exit code 0 when each that ran is killed by the check that names it and no check of another layer fails, 3 when
    none could run or it was interrupted: --out then holds the faults so far, and its footer says so.
    """
    faults = [find_fault(name) for name in ids] or list(load_faults().values())
    if layer:
        legal_name("layer", layer, LAYERS)
        faults = [fault for fault in faults if fault.layer == layer]
    if not faults:
        raise KitError("no fault is left by --layer and --fault; see `gaugeblock faults`")
    console = Console(highlight=False)
    unclean: list[Kill] = []

    def done(kill: Kill) -> None:
        _line(console, kill)
        if not _clean(kill):
            unclean.append(kill)

    def broken_off(matrix: dict[str, Any]) -> None:
        if out is not None:
            write_json(matrix, "kills", Path(out))
            count = f"{matrix['summary']['faults']} of {len(faults)} faults"
            console.print(f"broken off, incomplete: {out} holds {count}", soft_wrap=True)

    require("planting faults", "torch", "triton")
    prepare_file(out)
    matrix = run_matrix(faults, scope=scope, jobs=jobs, done=done, broken_off=broken_off)
    summary = matrix["summary"]
    for name, why in summary["not_run"].items():
        console.print(f"[dim]not run  {name}  {why}[/]", soft_wrap=True)
    if out is not None:
        write_json(matrix, "kills", Path(out))
    console.print(
        f"{summary['named']} of {summary['faults']} faults killed by the check that names them, "
        f"{summary['other']} by another, {summary['survived']} survived, {summary['error']} errors, "
        f"{summary['collateral']} with collateral, {summary['seconds']:.0f} s"
        + (f"; not run for lack of the GPU that they need: {len(summary['not_run'])}" if summary["not_run"] else "")
    )
    if summary["by_op"]:
        scores = ", ".join(f"{op} {score['named']}/{score['faults']}" for op, score in summary["by_op"].items())
        console.print(f"mutation score by op: {scores}")
    for kill in unclean:  # once more: the end of a long log must say what to look at
        _line(console, kill)
    if not summary["faults"]:
        return EXIT_CODES["partial"]
    return EXIT_CODES["error"] if summary["error"] else EXIT_CODES["nonconformant" if unclean else "conformant"]


def _clean(kill: Kill) -> bool:
    return kill.outcome == "named" and not kill.collateral


def _line(console: Console, kill: Kill) -> None:
    colour = "green" if _clean(kill) else "bold red"
    others = f" also {', '.join(k for k in kill.killed_by if k != kill.fault.check)}" if len(kill.killed_by) > 1 else ""
    extra = f" collateral {', '.join(kill.collateral)}" if kill.collateral else ""
    console.print(
        f"[{colour}]{kill.outcome:9s}[/]{kill.fault.id}  {kill.fault.check}{others}{extra} "
        f"[dim]{kill.seconds:.1f} s[/]",
        soft_wrap=True,
    )
    if kill.outcome != "named":
        console.print(
            f"         expected {escape(repr(kill.fault.message))}, got: {escape(kill.message)}", soft_wrap=True
        )
