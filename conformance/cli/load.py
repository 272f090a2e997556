"""``gaugeblock load``: one genai-bench scenario against an engine, judged by limits."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from gaugeblock.conformance.out import prepare_out
from gaugeblock.conformance.versions import version_of
from gaugeblock.fixtures import envs
from gaugeblock.fixtures.load.bench import Endpoint
from gaugeblock.fixtures.load.judge import LoadRun, run_load
from gaugeblock.fixtures.load.preflight import find_endpoint
from gaugeblock.fixtures.load.scenario import CacheMode, Scenario
from gaugeblock.fixtures.load.slo import LATENCIES, Slo, parse_slo
from gaugeblock.fixtures.targets.engine import EngineTarget
from gaugeblock.fixtures.targets.options import TargetOptions

SCHEMA_VERSION = 1
EXIT = {"met": 0, "measured": 0, "missed": 1, "failed": 1, "inconclusive": 3}
OURS = ("load.json",)
FOLDERS = ("run", "calibration")
VERDICTS = {(True, False): "[green]met[/]", (False, False): "[red]missed[/]", (False, True): "[yellow]disputed[/]"}


@click.command()
@click.option("--engine-url", required=True, metavar="URL", help="The engine's base URL.")
@click.option(
    "--scenario", "traffic", default="D(100,20)", show_default=True, help="D(i,o), N(m,s)/(m,s), U(a,b)/(c,d)."
)
@click.option("--concurrency", type=int, default=16, show_default=True, help="Requests in flight.")
@click.option("--max-requests", type=int, default=200, show_default=True)
@click.option("--max-minutes", type=int, default=2, show_default=True, help="Whole minutes.")
@click.option(
    "--slo", "limits", multiple=True, metavar="LIMIT", help="ttft.p95<=200ms, error_rate<=0, rps>=10; repeat."
)
@click.option("--cache", type=click.Choice(["cold", "warm"]), default="warm", show_default=True, help="State before.")
@click.option(
    "--model-tokenizer", "--model", "tokenizer", type=Path, metavar="FOLDER", help="Default: as the engine says."
)
@click.option("--api-key-env", default="GAUGEBLOCK_API_KEY", show_default=True, metavar="VAR")
@click.option("--out", type=Path, default=Path("gaugeblock-load"), show_default=True, help="load.json and raw files.")
def load(
    engine_url: str,
    traffic: str,
    concurrency: int,
    max_requests: int,
    max_minutes: int,
    limits: tuple[str, ...],
    cache: CacheMode,
    tokenizer: Path | None,
    api_key_env: str,
    out: Path,
) -> int:
    """Drive one genai-bench scenario and hold it to limits.

    Exit codes: 0 all limits met, 1 one missed or every request failed, 2 usage, 3 the client was the bottleneck,
    4 genai-bench is not installed or the engine not reachable.
    """
    slos = tuple(parse_slo(text) for text in limits)
    scenario = Scenario(traffic, concurrency, max_requests, max_minutes, cache)
    options = TargetOptions(engine_urls=(engine_url,), api_key_env=api_key_env)
    env = envs.require("genai-bench")
    target = EngineTarget(engine_url.rstrip("/"), api_key=options.api_key)
    endpoint = find_endpoint(target, tokenizer, options.api_key)
    prepare_out(out, OURS, FOLDERS)
    console = Console(stderr=True)
    note = f"{scenario.traffic} at {concurrency} in flight against {endpoint.model} at {endpoint.url}, cache {cache}"
    with console.status(note):
        run = run_load(target, env, endpoint, scenario, slos, out)
    path = write_report(run, endpoint, target, scenario, env, out)
    show(run, Console(), note)
    click.echo(f"result: {run.result} ({run.message})\nreport: {path}")
    return EXIT[run.result]


def write_report(
    run: LoadRun, endpoint: Endpoint, target: EngineTarget, scenario: Scenario, env: envs.Environment, out: Path
) -> Path:
    """Write ``load.json`` in one piece and return its path; a file without its footer is no report."""
    data = {
        "schema_version": SCHEMA_VERSION,
        "kit": {"name": "gaugeblock", "version": version_of("gaugeblock")},
        "target": {"url": endpoint.url, "tokenizer": str(endpoint.tokenizer), **target.probed.describe()},
        "client": {"name": env.recipe.name, "version": env.recipe.version, "recipe": env.recipe.digest},
        "scenario": {
            "traffic": scenario.traffic,
            "concurrency": scenario.concurrency,
            "max_requests": scenario.max_requests,
            "max_minutes": scenario.max_minutes,
            "cache": scenario.cache,
            "warmup_ratio": scenario.warmup_ratio,
        },
        "metrics": run.measurement.describe() if run.measurement else None,
        "slo": [_slo_row(j.slo, j.measured, j.met, j.disputed, j.why) for j in run.judgements],
        "client_check": run.client_check(),
        "result": run.result,
        "message": run.message,
        "footer": {"complete": True},
    }
    path = out / "load.json"
    draft = out / "load.json.tmp"
    draft.write_text(json.dumps(_without_key(data, endpoint.api_key), indent=1, allow_nan=False) + os.linesep)
    draft.replace(path)
    return path


def _slo_row(slo: Slo, measured: float, met: bool, disputed: bool, why: str) -> dict[str, Any]:
    return {
        "text": slo.text,
        "metric": slo.metric,
        "statistic": slo.statistic,
        "operator": slo.operator,
        "limit": slo.limit,
        "measured": measured if measured != float("inf") else None,
        "met": met,
        "disputed": disputed,
        "why": why,
    }


def _without_key(data: Any, key: str | None) -> Any:
    """Return ``data`` with the API key hidden in every text: a server may echo it in an error."""
    if not key:
        return data
    if isinstance(data, dict):
        return {name: _without_key(value, key) for name, value in data.items()}
    if isinstance(data, list):
        return [_without_key(value, key) for value in data]
    return data.replace(key, "[hidden]") if isinstance(data, str) else data


def show(run: LoadRun, console: Console, title: str) -> None:
    """Print what was measured and the limits beside it."""
    if run.measurement is not None and run.result != "failed":
        m = run.measurement
        click.echo(
            f"{title}: {m.completed} of {m.requests} requests in {m.seconds:.1f} s, {m.rps:.1f} requests/s, "
            f"{m.output_tokens_per_s:.0f} output tokens/s"
        )
        table = Table("ms", "mean", "p50", "p95", "p99", box=None, pad_edge=False, header_style="dim")
        for metric in LATENCIES:
            cells = (m.latencies[metric].get(name) for name in ("mean", "p50", "p95", "p99"))
            table.add_row(metric, *("-" if value is None else f"{value * 1e3:.1f}" for value in cells))
        console.print(table)
    if run.judgements:
        table = Table("limit", "measured", "", "", box=None, pad_edge=False, header_style="dim")
        for j in run.judgements:
            measured = j.slo.show(j.measured) if j.measured != float("inf") else "nothing"
            table.add_row(j.slo.text, measured, VERDICTS[j.met, j.disputed], j.why)
        console.print(table)
