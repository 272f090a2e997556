"""``gaugeblock simulate``: routing policies on a recorded trace, without HTTP."""

from __future__ import annotations

from pathlib import Path

import click

from gaugeblock.conformance.cli.bench import OUT
from gaugeblock.conformance.out import prepare_out
from gaugeblock.fixtures.errors import KitError, legal_name

GENERATED = 2000  # requests of the shipped generator


@click.command("simulate")
@click.option("--trace", type=click.Path(dir_okay=False, path_type=Path), help="Mooncake's format; default: generated")
@click.option("--requests", type=click.IntRange(1), metavar="N", help="only the first N of the trace")
@click.option("--workers", type=click.IntRange(1, 1000), default=16, show_default=True)
@click.option("--policy", "policies", multiple=True, metavar="NAME", help="only this policy; repeatable")
@click.option("--set", "settings", multiple=True, metavar="NAME=NUMBER", help="a setting of the policies; repeatable")
@click.option("--speed", type=float, default=1.0, show_default=True, help="times as fast as recorded")
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--prefill-rate", type=float, default=10_000.0, show_default=True, help="tokens a second of a worker")
@click.option("--output-rate", type=float, default=40.0, show_default=True, help="tokens a second of one request")
@click.option("--slots", type=click.IntRange(1), default=64, show_default=True, help="requests a worker runs at once")
@click.option("--cache-tokens", type=click.IntRange(0), default=400_000, show_default=True, help="KV a worker keeps")
@click.option("--paper", metavar="WORKERS:REQUESTS_PER_HOUR", help="also the decisions' cost in such a fleet")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=OUT, show_default=True)
def simulate(
    trace: Path | None,
    requests: int | None,
    workers: int,
    policies: tuple[str, ...],
    settings: tuple[str, ...],
    speed: float,
    seed: int,
    prefill_rate: float,
    output_rate: float,
    slots: int,
    cache_tokens: int,
    paper: str | None,
    out: Path,
) -> int:
    """Replay a trace through the router's policies and a simulated fleet: hit rate, balance and tail by policy.

    The policies are the router's own code; workers are simulated, each with a bounded prefix cache, so that what the
    router predicts can be wrong. Writes simulate.txt, .json and .svg.
    """
    from gaugeblock.conformance.bench.routing.fleet import Engine
    from gaugeblock.conformance.bench.routing.paper import on_paper
    from gaugeblock.conformance.bench.routing.report import Report, Row, render, write
    from gaugeblock.conformance.bench.routing.simulate import Setup
    from gaugeblock.conformance.bench.routing.simulate import simulate as run
    from gaugeblock.fixtures.targets.router_policies import OwnPolicies
    from gaugeblock.fixtures.traces import generate_trace, load_trace

    for name, value in (("speed", speed), ("prefill-rate", prefill_rate), ("output-rate", output_rate)):
        if not 0 < value < float("inf"):
            raise KitError(f"--{name} must be a number > 0, got {value:g}")
    fleet = _fleet(paper) if paper else None
    own, chosen = OwnPolicies(), _settings(settings)
    names = policies or tuple(own.names())
    made = {name: own.make(name, chosen) for name in names}  # an unknown name ends it here
    prepare_out(out)
    arrivals = (generate_trace(seed, requests or GENERATED) if trace is None else load_trace(trace))[:requests]
    setup = Setup(workers, Engine(prefill_rate, output_rate, slots, cache_tokens), speed, seed)
    rows = []
    for name, policy in made.items():
        rows.append(Row.of(run(arrivals, policy, name, setup)))
        click.echo(f"{name}: {rows[-1].hit_rate:.1%} cached", err=True)
    title = trace.name if trace else "a generated trace"
    paper_fleet = on_paper(arrivals, names, *fleet) if fleet else None
    report = Report(title, len(arrivals), setup, rows, paper_fleet, chosen)
    write(out, report)
    click.echo(render(report))
    click.echo(f"\nwritten: {out}/simulate.txt, .json and .svg", err=True)
    return 0


def _settings(words: tuple[str, ...]) -> dict[str, float]:
    """Read ``NAME=NUMBER`` words.

    Raises:
        KitError: naming the legal settings, or what is no number.
    """
    from gaugeblock.reference.router.policies.base import PolicySettings

    legal = PolicySettings._field_defaults
    chosen: dict[str, float] = {}
    for word in words:
        name, _, text = word.partition("=")
        legal_name("setting", name, legal)
        try:
            chosen[name] = type(legal[name])(text)
        except ValueError:
            kind = "a whole number" if isinstance(legal[name], int) else "a number"
            raise KitError(f"--set {name} takes {kind}, such as {name}={legal[name]}; got {text!r}") from None
    return chosen


def _fleet(text: str) -> tuple[int, float]:
    """Read ``WORKERS:REQUESTS_PER_HOUR``.

    Raises:
        KitError: with an example.
    """
    workers, _, rate = text.partition(":")
    try:
        fleet = int(workers), float(rate)
    except ValueError:
        fleet = 0, 0.0
    if not (fleet[0] > 0 and 0 < fleet[1] < float("inf")):
        raise KitError(f"--paper takes workers and requests an hour, such as 1000:10e6; got {text!r}")
    return fleet
