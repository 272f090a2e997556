"""``gaugeblock bench similarity``: right variants and faults of one model, and whether the gates tell them apart."""

from __future__ import annotations

import time
from pathlib import Path

import click

from gaugeblock.conformance.out import prepare_out
from gaugeblock.fixtures.extras import require


@click.command("similarity")
@click.option(
    "--model", type=click.Path(path_type=Path), metavar="PATH", help="A Hugging Face folder; default: tiny-llama."
)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), default=Path("gaugeblock-out"), show_default=True
)
def similarity_command(model: Path | None, device: str, out: Path) -> int:
    """Tell seven right variants of a model from nine faults, teacher-forced over the kit's prompts.

    Writes bench-similarity.txt and .json. Exit code 1: a right variant fails the statistical gate, a fault passes it,
    or is not told within 2,000 positions.
    """
    require("this bench", "torch")
    import torch

    from gaugeblock.conformance.bench.similarity.report import Report, render, write
    from gaugeblock.conformance.bench.similarity.separation import (
        STATISTIC,
        false_alarms,
        measure,
        separate,
    )
    from gaugeblock.fixtures.embedded import given_model, tiny_model
    from gaugeblock.fixtures.similarity import measure_null
    from gaugeblock.fixtures.similarity.variants import RIGHT

    folder = given_model(model or tiny_model())
    prepare_out(out)

    def say(line: str) -> None:
        click.echo(line, err=True)

    started = time.monotonic()
    chosen = device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    bench = measure_null.load_bench(folder, chosen)
    compared, cosines = measure(bench, say)
    null = measure_null.measure_null(bench, list(RIGHT), say)
    rows = separate(compared, cosines, null, bench.prompts)
    report = Report(
        measure_null.describe_model(bench),
        measure_null.describe_prompts(bench),
        measure_null.provenance(chosen),
        null.gate(STATISTIC),
        rows,
        false_alarms(null),
        time.monotonic() - started,
    )
    write(out, report)
    click.echo(render(report))
    click.echo(f"\nwritten: {out}/bench-similarity.txt and .json", err=True)
    return 1 if report.problems() else 0
