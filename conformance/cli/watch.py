"""``gaugeblock watch``: an endpoint held against its calibration, round after round."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from gaugeblock.conformance.cli.seconds import INTERVAL, TIMEOUT
from gaugeblock.conformance.similarity.endpoints import AnsweringEngine
from gaugeblock.conformance.similarity.watch_report import ENDINGS, Record, line
from gaugeblock.conformance.similarity.watching import STATISTICAL, watcher_for
from gaugeblock.fixtures.errors import EnvironmentFault, KitError
from gaugeblock.fixtures.similarity import calibration as calibrations
from gaugeblock.fixtures.targets.options import TargetOptions
from gaugeblock.fixtures.watch.hold import Pace, hold
from gaugeblock.fixtures.watch.rounds import SIZE, Round

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds_of(text: str) -> float:
    """Return the seconds of a duration such as ``90s``, ``30m``, ``1h30m`` or ``2d``.

    Raises:
        KitError: something else.
    """
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise KitError(f"{text!r} is no duration: give one such as 90s, 30m, 1h30m or 2d")
    seconds = sum(float(number) * UNITS[unit] for number, unit in parts)
    if seconds == math.inf:
        raise KitError("a duration of so many digits is none: give one such as 90s, 30m, 1h30m or 2d")
    return seconds


@click.command()
@click.argument("url")
@click.option("--calibration", type=click.Path(path_type=Path), required=True, metavar="FILE", help="The model's null.")
@click.option("--reference", metavar="URL", help="The engine that is believed; default: --model in fp32, on the CPU.")
@click.option("--model", type=click.Path(path_type=Path), metavar="PATH", help="The served model's folder.")
@click.option("--gate", default="bf16", show_default=True, metavar="NAME", help=f"{' or '.join(STATISTICAL)}.")
@click.option("--interval", type=INTERVAL, default=60.0, show_default=True, metavar="SECONDS", help="Between rounds.")
@click.option("--positions", type=click.IntRange(1, 10_000), default=SIZE, show_default=True, help="A round.")
@click.option("--alpha", type=float, default=1e-3, show_default=True, help="False-alarm rate of the whole watch.")
@click.option("--rounds", type=click.IntRange(1), metavar="N", help="End after so many.")
@click.option("--for", "duration", metavar="DURATION", help="End after 90s, 30m, 2h…; default: watch on.")
@click.option(
    "--patience", default="5m", show_default=True, metavar="DURATION", help="How long the endpoint may be away."
)
@click.option("--top", type=click.IntRange(1), metavar="N", help="Candidates a position; default: as many as it gives.")
@click.option("--priority", metavar="NAME", help="Sent as x-priority: low is what goes to a CPU lane.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the order of positions.")
@click.option("--metrics-port", type=click.IntRange(1, 65535), metavar="P", help="Prometheus metrics on 127.0.0.1:P.")
@click.option("--api-key-env", default="GAUGEBLOCK_API_KEY", show_default=True, metavar="VAR")
@click.option("--timeout", type=TIMEOUT, default=30.0, show_default=True, metavar="SECONDS", help="Of one request.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), metavar="DIR", help="watch.jsonl, watch.json.")
def watch(
    url: str,
    calibration: Path,
    reference: str | None,
    model: Path | None,
    gate: str,
    interval: float,
    positions: int,
    alpha: float,
    rounds: int | None,
    duration: str | None,
    patience: str,
    top: int | None,
    priority: str | None,
    seed: int,
    metrics_port: int | None,
    api_key_env: str,
    timeout: float,
    out: Path | None,
) -> int:
    """Hold the engine at URL against its calibration, and say so when it has surely become another.

    Each round draws some positions of the kit's prompts and asks for their next-token log-probabilities. One sequential
    test runs through all rounds: a right engine is ever alarmed with a probability of at most --alpha, however long it
    is watched.

    Exit codes: 0 the rounds ended without an alarm, 1 a confirmed regression, 2 usage, 3 undecided (too few candidates)
    or interrupted, 4 no answer at the start, or for longer than --patience.
    """
    pace = Pace(interval, seconds_of(patience), rounds, None if duration is None else seconds_of(duration))
    null = calibrations.load(calibration)
    urls = (url,) if reference is None else (url, reference)
    options = TargetOptions(engine_urls=urls, model=None if model is None else str(model), api_key_env=api_key_env,
                            request_timeout=timeout)  # fmt: skip
    target, *others = (
        AnsweringEngine(each, api_key=options.api_key, model_path=model, timeout=timeout)
        for each in options.engine_urls
    )
    watcher, prompts = watcher_for(
        target,
        others[0] if others else None,
        null,
        folder=model,
        gate=gate,
        alpha=alpha,
        size=positions,
        seed=seed,
        top=top,
        priority=priority,
    )
    with _metrics(metrics_port, interval) as note, Record(out, prompts) as record:

        def told(made: Round) -> None:
            note(made)
            record.add(made)
            click.echo(line(made))

        try:
            ending = hold(watcher, pace, told)
        except KeyboardInterrupt:
            record.end("interrupted", target, null, gate, alpha, pace)
            raise
        record.end(ending, target, null, gate, alpha, pace)
    click.echo(ENDINGS[ending].text(watcher, pace))
    return ENDINGS[ending].code


@contextmanager
def _metrics(port: int | None, interval: float) -> Iterator[Callable[[Round], None]]:
    """Serve metrics for the length of a ``with`` block; yield what takes a round."""
    if port is None:
        yield lambda made: None
        return
    from prometheus_client import start_http_server

    from gaugeblock.fixtures.watch.metrics import Metrics

    metrics = Metrics(interval, time.time)
    try:
        server, thread = start_http_server(port, addr="127.0.0.1", registry=metrics.registry)
    except OSError as error:
        raise EnvironmentFault(
            f"cannot serve metrics on 127.0.0.1:{port}: {error.strerror}; give another port"
        ) from None
    try:
        yield metrics.note
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)
