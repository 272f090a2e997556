"""``gaugeblock compare``: two engines, teacher-forced over HTTP, held to a gate."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from gaugeblock.conformance.cli.seconds import TIMEOUT
from gaugeblock.conformance.out import prepare_file
from gaugeblock.conformance.similarity.endpoints import RUNGS, AnsweringEngine, Comparison, compare_endpoints
from gaugeblock.conformance.verdict import EXIT_CODES
from gaugeblock.conformance.versions import version_of
from gaugeblock.fixtures.errors import KitError, legal_name
from gaugeblock.fixtures.similarity import calibration as calibrations
from gaugeblock.fixtures.similarity.gates import GATES
from gaugeblock.fixtures.similarity.summary import Place
from gaugeblock.fixtures.targets.engine import EngineTarget
from gaugeblock.fixtures.targets.options import TargetOptions

SCHEMA_VERSION = 1


@click.command()
@click.argument("url_a")
@click.argument("url_b")
@click.option("--model", type=click.Path(path_type=Path), metavar="PATH", help="The served model's folder.")
@click.option("--calibration", type=click.Path(path_type=Path), metavar="FILE", help="By `gaugeblock calibrate`.")
@click.option(
    "--gate", metavar="NAME", help="exact, fp32, bf16 or int8; default: fp32 when both compute in it, else bf16."
)
@click.option("--top", type=click.IntRange(1), metavar="N", help="Candidates a position; default: as the gate needs.")
@click.option("--api-key-env", default="GAUGEBLOCK_API_KEY", show_default=True, metavar="VAR")
@click.option(
    "--timeout", type=TIMEOUT, default=90.0, show_default=True, metavar="SECONDS", help="Limit of one request."
)
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Write the comparison as JSON.")
def compare(
    url_a: str,
    url_b: str,
    model: Path | None,
    calibration: Path | None,
    gate: str | None,
    top: int | None,
    api_key_env: str,
    timeout: float,
    out: Path | None,
) -> int:
    """Compare engine URL_B with URL_A, the more exact of the two.

    Both are given the kit's 24 prompts and asked for their next-token log-probabilities at every position. Exit
    codes: 0 conformant, 1 nonconformant, 2 usage, 3 inconclusive, 4 an engine cannot be reached or does not answer.
    """
    if gate is not None:
        legal_name("gate", gate, GATES)
    options = TargetOptions(
        engine_urls=(url_a, url_b),
        model=None if model is None else str(model),
        api_key_env=api_key_env,
        request_timeout=timeout,
    )
    null = None if calibration is None else calibrations.load(calibration)
    targets = [
        AnsweringEngine(url, api_key=options.api_key, model_path=model, timeout=timeout) for url in options.engine_urls
    ]
    prepare_file(out, calibration)
    found = compare_endpoints(*targets, gate=gate, calibration=null, folder=model, top=top)
    click.echo(table(found))
    if out is not None:
        write(out, targets, found, null)
        click.echo(f"written: {out}", err=True)
    return EXIT_CODES[found.result]


def table(found: Comparison) -> str:
    """Return what was measured, what is held against it, and the result."""
    lines = []
    if found.similarity is not None:
        s = found.similarity
        gate = found.gate
        seen = " and ".join(str(top) for top in dict.fromkeys(found.tops))
        lines += [
            f"{s.prompts} prompts, {s.positions} positions, {seen} candidates each, {found.seconds:.1f} s",
            f"gate {gate.name}",
            _row("overlap, worst prompt", s.worst_prompt, _limit(gate.worst_prompt)),
            _row("overlap, first percentile", s.tail, _limit(gate.tail)),
            _row("overlap, lowest 1%", s.shortfall, _limit(gate.shortfall)),
            _row("overlap, lowest", s.lowest),
            *([_excess(s.excess, gate.excess)] if s.excess is not None else []),
            _row("largest difference", s.gap, f"at most {gate.gap:g}" if gate.gap is not None else "", " nats"),
            _row("KL, largest", s.kl_max, unit=" nats" if not s.unseen else " nats at least"),
            f"overlap, mean              {s.overlap:.4f}, unseen {s.unseen:.4f}; KL, mean {s.kl_mean:.1e}",
            f"same best token            {s.top1:.4f}; flips at a margin of 1 nat {s.flips:.4f}",
        ]
    lines += [*found.judgement.complaints, *found.judgement.doubts]
    if found.rung is not None:
        lines.append(f"first failing rung: {found.rung} ({RUNGS[found.rung]})")
    return "\n".join([*lines, f"result: {found.result}"])


def _limit(value: float | None) -> str:
    return "" if value is None else f"above {value:.4f}"


def _excess(place: Place, limit: float | None) -> str:
    most = "" if limit is None else f" (at most {limit:.2f})"
    at = f"at prompt {place.prompt}, position {place.position}"
    return f"{'worst 1%, against usual':26} {place.times} as far off{most} {at}"


def _row(name: str, place: Place, limit: str = "", unit: str = "") -> str:
    value = f"{place.value:.2e}{unit}" if unit else f"{place}"
    return f"{name:26} {value}{f' ({limit})' if limit else ''} at prompt {place.prompt}, position {place.position}"


def write(out: Path, targets: Sequence[EngineTarget], found: Comparison, null: calibrations.Calibration | None) -> None:
    """Write the comparison in one piece; a file without its footer is none.

    Raises:
        KitError: it cannot be written.
    """
    data: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "kit": {"name": "gaugeblock", "version": version_of("gaugeblock")},
        "engines": [{"url": target.url, **target.probed.describe()} for target in targets],
        "calibration": None if null is None else {"model": null.model, **null.provenance},
        **found.describe(),
        "footer": {"complete": True},
    }
    draft = out.with_name(out.name + ".tmp")
    try:
        draft.write_text(json.dumps(data, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        draft.replace(out)
    except OSError as error:
        raise KitError(f"cannot write {str(out)!r}: {error.strerror}") from error
