"""``gaugeblock calibrate``: measure how far a model's own right variants lie from fp32."""

from __future__ import annotations

from pathlib import Path

import click

from gaugeblock.conformance.out import prepare_file
from gaugeblock.fixtures.embedded import given_model
from gaugeblock.fixtures.errors import legal_name
from gaugeblock.fixtures.extras import require
from gaugeblock.fixtures.similarity.gates import GATES, Gate
from gaugeblock.fixtures.similarity.prediction import LEAST, ROUNDINGS


@click.command()
@click.option("--model", type=click.Path(path_type=Path), required=True, metavar="PATH", help="A Hugging Face folder.")
@click.option(
    "--null",
    "names",
    default="bf16,int8-weights",
    show_default=True,
    metavar="NAMES",
    help="Right variants, comma-separated: chunked, fp16, bf16, int8-weights, int8-activations, int8-kv, fp8-kv.",
)
@click.option(
    "--roundings",
    type=click.IntRange(LEAST),
    default=ROUNDINGS,
    show_default=True,
    help="Of each variant that rounds: the model's own, and those of its twins.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="FILE", help="Where the JSON goes.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
def calibrate(model: Path, names: str, roundings: int, out: Path, device: str) -> int:
    """Measure a model's null: an A/A run and right variants against fp32, teacher-forced over the kit's prompts.

    What is rounded is measured over several roundings: of twins of the model, which compute the same by other weights.
    The file is valid for these weights and this tokenizer alone; `gaugeblock compare --calibration FILE` refuses it for
    others.
    """
    require("calibrating", "torch")
    given_model(model)
    from gaugeblock.fixtures.similarity import calibration
    from gaugeblock.fixtures.similarity.measure_null import load_bench, measure_null
    from gaugeblock.fixtures.similarity.variants import RIGHT, SERVED

    chosen = [legal_name("null", name.strip(), {**RIGHT, **SERVED}) for name in names.split(",") if name.strip()]
    prepare_file(out)
    found = measure_null(load_bench(model, device), chosen, lambda line: click.echo(line, err=True), roundings)
    calibration.save(found, out)
    for gate in GATES.values():
        click.echo(_line(gate, found))
    click.echo(f"written: {out}", err=True)
    return 0


def _line(gate: Gate, found: object) -> str:
    from gaugeblock.fixtures.similarity.calibration import Calibration

    assert isinstance(found, Calibration)
    if not gate.statistical:
        return f"gate {gate.name}: needs no calibration"
    if not any(name in found.overlaps for name in gate.needs):
        return f"gate {gate.name}: not calibrated, add one of {', '.join(gate.needs)}"
    made = found.gate(gate)
    worst = "" if made.excess is None else f", worst 1% at most {made.excess:.2f} times as far off as usual"
    return (
        f"gate {gate.name}: worst prompt above {made.worst_prompt}, first percentile above {made.tail:.4f}, "
        f"mean of the lowest 1% above {made.shortfall:.4f}{worst}"
    )
