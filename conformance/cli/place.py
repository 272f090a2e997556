"""``gaugeblock place``: where each operator of a model should run, what that is predicted to take, and what it does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from gaugeblock.conformance.cli.quantization import QUANTIZATION, QUANTIZED_PATH, refuse_idle_path
from gaugeblock.conformance.cli.sizes import BYTES
from gaugeblock.conformance.out import prepare_out
from gaugeblock.fixtures.embedded import given_model, tiny_model
from gaugeblock.fixtures.errors import EnvironmentFault, KitError
from gaugeblock.fixtures.extras import require
from gaugeblock.reference.hybrid.placement import PlacementError, write_record
from gaugeblock.reference.hybrid.planner import STRATEGIES, plan

if TYPE_CHECKING:
    from gaugeblock.reference.hybrid.model_profile import ModelBench
    from gaugeblock.reference.hybrid.placement import Placement
    from gaugeblock.reference.hybrid.profile import Profile, Timing

OURS = ("placement.json", "profile.json", "strategies.json")
DEVICES = {"auto": "auto", "cuda": "cuda", "pretend": "pretend", "cpu": "pretend"}
SCHEMA_VERSION = 1
T = TypeVar("T")
WIDE = 120


@dataclass(frozen=True)
class Row:
    """A strategy's plan, and what it took when it was run."""

    plan: Placement
    measured: Timing

    @property
    def error(self) -> float:
        """How far the prediction is off, as a share of what was measured."""
        return self.plan.predicted_seconds / self.measured.median - 1


@click.command()
@click.option("--model", type=Path, metavar="PATH", help="A Hugging Face folder; the tiny model of the kit by default.")
@click.option(
    "--device-budget", "budget", type=BYTES, required=True, help="Weights, KV and activations on the device, as 2GiB."
)
@click.option(
    "--strategy",
    type=click.Choice(list(STRATEGIES)),
    default=next(iter(STRATEGIES)),
    show_default=True,
    help="Whose plan goes to placement.json; all are planned and measured.",
)
@click.option(
    "--device",
    type=click.Choice(list(DEVICES)),
    default="auto",
    show_default=True,
    help="The second device: a GPU, or a part of the CPU that stands in for one (pretend, or cpu).",
)
@click.option(
    "--profile", "profile_path", type=Path, metavar="FILE", help="A profile.json to plan by; nothing is timed."
)
@QUANTIZATION
@QUANTIZED_PATH
@click.option("--tokens", type=click.IntRange(1), default=64, show_default=True, help="Tokens of the pass.")
@click.option("--kv-tokens", type=click.IntRange(0), default=1024, show_default=True, help="KV that attention keeps.")
@click.option(
    "--out",
    type=Path,
    default=Path("gaugeblock-place"),
    show_default=True,
    metavar="DIR",
    help="placement.json, profile.json, strategies.json.",
)
def place(
    model: Path | None,
    budget: int,
    strategy: str,
    device: str,
    profile_path: Path | None,
    quantization: str | None,
    quantized_path: str | None,
    tokens: int,
    kv_tokens: int,
    out: Path,
) -> int:
    """Profile a model operator by operator, plan where each should run, and run the plans.

    Predicted and measured are both medians of passes. `gaugeblock serve engine --placement
    DIR/placement.json` serves the plan, with the same --quantization.

    Exit codes: 0 planned and measured, 2 usage, 4 the device is missing or failed.
    """
    require("placing", "torch")
    from gaugeblock.reference.engine.errors import DeviceFault, ModelError

    refuse_idle_path(quantization, quantized_path)
    folder = given_model(model or tiny_model())
    prepare_out(out)  # nothing is removed: --profile may lie there
    try:
        saved = None if quantized_path is None else Path(quantized_path)
        bench = _bench(folder, DEVICES[device], tokens, quantization, saved)
        profile = _profile(bench, profile_path, kv_tokens)
        rows = _rows(bench, profile, budget)
    except (ModelError, PlacementError) as problem:
        raise KitError(str(problem)) from None
    except DeviceFault as problem:
        raise EnvironmentFault(str(problem)) from None
    next(row.plan for row in rows if row.plan.strategy == strategy).save(out / OURS[0])
    profile.save(out / OURS[1])
    write_record(out / OURS[2], _record(bench, profile, budget, rows))
    _show(bench, profile, budget, rows)
    click.echo("written: " + ", ".join(str(out / name) for name in OURS))
    return 0


def _bench(folder: Path, device: str, tokens: int, quantization: str | None, saved: Path | None) -> ModelBench:
    import torch

    from gaugeblock.reference.hybrid.devices import open_device
    from gaugeblock.reference.hybrid.model_profile import ModelBench

    if device == "cuda" and not torch.cuda.is_available():
        raise EnvironmentFault("there is no CUDA device here: use --device auto or pretend, or run on a GPU machine")
    return _told("loading", lambda: ModelBench(folder, open_device(device), tokens, quantization, saved))


def _profile(bench: ModelBench, path: Path | None, kv_tokens: int) -> Profile:
    from gaugeblock.reference.hybrid.profile import Profile

    if path is None:
        return _told("timing every operator on both devices", lambda: bench.profile(kv_tokens))
    found = Profile.load(path)
    missing = [name for name in bench.operators if name not in found.by_name]
    if missing:
        raise KitError(
            f"{str(path)!r} is the profile of another model ({found.model}): it has no {missing[0]}, of {len(missing)} "
            "operators; leave --profile out to make one"
        )
    if found.quantization != bench.quantization:
        raise KitError(
            f"{str(path)!r} is a profile with the host in {_precision(found)}, and this plans for "
            f"{_precision(bench)}: give the --quantization that it was made with, or leave --profile out"
        )
    return found


def _precision(timed: ModelBench | Profile) -> str:
    return "fp32" if timed.quantization is None else timed.quantization.upper()


def _rows(bench: ModelBench, profile: Profile, budget: int) -> list[Row]:
    plans = [plan(profile, budget, name, movable=bench.operators) for name in STRATEGIES]
    measured = _told("running the plans", lambda: bench.measure([made.devices for made in plans]))
    return [Row(*pair) for pair in zip(plans, measured, strict=True)]


def _told(what: str, work: Callable[[], T]) -> T:
    from rich.console import Console

    with Console(stderr=True).status(what):
        return work()


def _drift(profile: Profile, rows: list[Row]) -> float:
    """Return how much longer the host alone takes now than in the profile, as a share."""
    now = next(row.measured.median for row in rows if row.plan.strategy == "cpu")
    return now / profile.whole["host"].median - 1


def _record(bench: ModelBench, profile: Profile, budget: int, rows: list[Row]) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "model": bench.folder.name,
        "device": bench.device.name,
        "tokens": len(bench.input_ids),
        "host_threads": bench.threads,
        "quantization": bench.quantization,
        "drift": round(_drift(profile, rows), 4),
        "budget_bytes": budget,
        "strategies": [
            {**row.plan.to_json(), "measured": asdict(row.measured), "error": round(row.error, 4)} for row in rows
        ],
    }


def _show(bench: ModelBench, profile: Profile, budget: int, rows: list[Row]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDE)  # a file has no edge; tables would be folded at 80
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("strategy")
    for name in ("on device", "bytes", "transfers", "predicted ms", "measured ms", "quartiles", "error"):
        table.add_column(name, justify="right")
    for row in rows:
        made = row.plan
        table.add_row(
            made.strategy,
            f"{len(made.on_device)} of {len(made.devices)}",
            f"{made.device_bytes:,}",
            str(made.transfers),
            f"{1e3 * made.predicted_seconds:.2f}",
            f"{1e3 * row.measured.median:.2f}",
            f"{1e3 * row.measured.low:.2f} to {1e3 * row.measured.high:.2f}",
            f"{100 * row.error:+.0f}%",
        )
    console.print(
        f"{bench.folder.name}, {len(bench.input_ids)} tokens, {bench.threads} threads of the host in "
        f"{_precision(bench)}, device {bench.device.name} with {budget:,} bytes; "
        f"a copy takes {1e6 * profile.to_device.latency:.0f} µs there and {1e6 * profile.to_host.latency:.0f} µs back "
        f"at least"
    )
    console.print(table)
    for made in (row.plan for row in rows if row.plan.gap_seconds):
        console.print(f"{made.strategy}: a better plan can be faster by {1e3 * made.gap_seconds:.3f} ms at most")
    profiled, drift = profile.whole["host"].median, _drift(profile, rows)
    console.print(
        f"all on the host took {1e3 * profiled:.2f} ms in the profile and {1e3 * profiled * (1 + drift):.2f} ms now "
        f"({100 * drift:+.0f}%): so much of an error may be the machine's"
    )
