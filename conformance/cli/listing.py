"""``gaugeblock checks`` and ``gaugeblock faults``: the catalogue, for people and for machines."""

from __future__ import annotations

import json
from collections.abc import Sequence

import click
from rich.console import Console
from rich.table import Table

from gaugeblock.conformance.catalogue import check_data, fault_data
from gaugeblock.conformance.check import LAYERS, load_checks
from gaugeblock.fixtures.errors import legal_name
from gaugeblock.fixtures.faults.record import load_faults


def _show(title: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in ("id", "level"))
    for row in rows:
        table.add_row(*row)
    console = Console(highlight=False)
    console.print(table)
    console.print(title, style="dim")


@click.command()
@click.option("--layer", metavar="LAYER", help="Only one layer.")
@click.option("--json", "as_json", is_flag=True, help="All fields, as JSON.")
def checks(layer: str | None, as_json: bool) -> None:
    """List the checks: id, level, feature, title."""
    layers = (legal_name("layer", layer, LAYERS),) if layer else tuple(LAYERS)
    records, unavailable = load_checks(layers)
    if as_json:
        click.echo(json.dumps([check_data(c) for c in records.values()], indent=1, ensure_ascii=False))
    else:
        rows = [(c.id, c.level, c.feature, c.title) for c in records.values()]
        _show(f"{len(rows)} checks", ("id", "level", "feature", "title"), rows)
    for name, reason in unavailable.items():
        click.echo(f"gaugeblock: the layer {name} is not listed: {reason}", err=True)


@click.command()
@click.option("--layer", metavar="LAYER", help="Only one layer.")
@click.option("--json", "as_json", is_flag=True, help="All fields, as JSON.")
def faults(layer: str | None, as_json: bool) -> None:
    """List the planted faults and the check that must catch each."""
    if layer:
        legal_name("layer", layer, LAYERS)
    found = [f for f in load_faults().values() if layer in (None, f.layer)]
    if as_json:
        click.echo(json.dumps([fault_data(f) for f in found], indent=1, ensure_ascii=False))
        return
    rows = [(f.id, f.check, f.title) for f in found]
    _show(f"{len(rows)} faults", ("id", "caught by", "what is broken"), rows)
