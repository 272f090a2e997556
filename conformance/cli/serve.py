"""``gaugeblock serve``: run the reference engine or router, for a look at them or as a stand-in."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import resources
from typing import Any

import click

from gaugeblock.conformance.cli.quantization import QUANTIZATION, QUANTIZED_PATH, refuse_idle_path
from gaugeblock.conformance.cli.sizes import BYTES
from gaugeblock.fixtures.errors import EnvironmentFault, KitError
from gaugeblock.fixtures.extras import require
from gaugeblock.fixtures.serve import ROUTER_PORT, serve_engine, serve_hybrid, serve_router

PORT = click.IntRange(0, 65535)


def start(part: Callable[[dict[str, Any]], None], fields: dict[str, Any]) -> None:
    """Serve until SIGTERM or Ctrl-C; what the reference says of a bad option is one line, not a traceback."""
    try:
        part(fields)
    except ValueError as error:  # a field out of range: the message names the legal values
        raise KitError(str(error)) from error
    except OSError as error:  # the address is taken, or a file cannot be read
        raise EnvironmentFault(str(error)) from error


@click.group()
def serve() -> None:
    """Serve a part of the reference stack until SIGTERM or Ctrl-C."""


def engine_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that an engine has, whether it serves alone or as lanes."""
    for option in reversed(ENGINE_OPTIONS):
        command = option(command)
    return command


ENGINE_OPTIONS = (
    click.option(
        "--model", metavar="PATH", help="A Hugging Face folder of the Llama architecture; default: tiny-llama."
    ),
    click.option("--served-model-name", metavar="NAME", help="The name in /v1/models; default: the folder's name."),
    click.option("--host", default="127.0.0.1", show_default=True),
    click.option("--port", type=PORT, default=30000, show_default=True),
    click.option("--page-size", type=click.IntRange(1, 1024), default=16, show_default=True, help="Tokens a page."),
    click.option("--max-total-tokens", type=click.IntRange(1), default=16384, show_default=True, help="KV pool size."),
    click.option(
        "--chunked-prefill-size", type=click.IntRange(1), default=64, show_default=True, help="Tokens a step."
    ),
    click.option("--host-kv-tokens", type=click.IntRange(0), default=0, show_default=True, help="Host tier size."),
    click.option("--disk-kv-path", metavar="DIR", help="Keep evicted KV there too, also for the next start."),
    click.option(
        "--disk-kv-tokens", type=click.IntRange(0), default=1 << 20, show_default=True, help="Disk tier size."
    ),
    QUANTIZED_PATH,
    click.option("--kv-policy", default="lru", show_default=True, help="Which cached pages go first."),
    click.option("--api-key-env", metavar="VAR", default="GAUGEBLOCK_API_KEY", show_default=True),
)


@serve.command()
@QUANTIZATION
@click.option(
    "--placement",
    "placement_path",
    metavar="FILE",
    help="Run operators on two devices, as `gaugeblock place` says; in fp32 on the second one.",
)
@click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="NAME",
    help="The second one: cuda, pretend (a part of the host), or auto: cuda where there is a GPU.",
)
@click.option("--device-budget", type=BYTES, help="Weights and KV that it may hold, as 2GiB; default: no limit.")
@engine_options
def engine(**fields: Any) -> None:
    """Serve the reference engine: SGLang's native API and OpenAI's."""
    if fields["placement_path"] is None and (fields["device"] != "auto" or fields["device_budget"] is not None):
        raise KitError(
            "--device and --device-budget say where the operators of --placement FILE run: give the file, too"
        )
    refuse_idle_path(fields["quantization"], fields["quantized_path"])
    _start_engine(serve_engine, fields)


@serve.command()
@click.option("--lanes", metavar="FILE", help="TOML with [[lanes]]; default: a GPU lane in fp32, a CPU lane in INT8.")
@engine_options
def hybrid(**fields: Any) -> None:
    """Serve the model by lanes: urgent requests by the GPU lane, patient ones by the CPU lane, in INT8.

    The headers x-priority (high, normal, low), x-quality-floor and x-request-timeout say what a request asks for;
    x-gaugeblock-lane and meta_info say who served it. Each lane has a model and a KV pool of its own.
    """
    _start_engine(serve_hybrid, fields)


def _start_engine(part: Callable[[dict[str, Any]], None], fields: dict[str, Any]) -> None:
    path = fields.pop("model") or str(resources.files("gaugeblock.golden").joinpath("tiny-llama"))
    require("the reference engine", "torch")
    from gaugeblock.reference.engine.errors import ModelError

    key = os.environ.get(fields.pop("api_key_env"))
    try:
        start(part, {**fields, "model_path": path, "api_key": key})
    except ModelError as error:
        raise KitError(str(error)) from error


@serve.command()
@click.option("--config", metavar="FILE", help="The whole configuration, in TOML; options outrank it.")
@click.option("--worker-url", "worker_urls", multiple=True, metavar="URL", help="Repeat for several.")
@click.option("--policy", metavar="NAME", help="Default: cache_aware.")
@click.option("--host", metavar="ADDRESS", help="Default: 127.0.0.1.")
@click.option("--port", type=PORT, help=f"Default: {ROUTER_PORT}.")
def router(**options: object) -> None:
    """Serve the reference router in front of running workers.

    SIGHUP reloads the rules and experiments of the configuration file.
    """
    fields = {name: value for name, value in options.items() if value not in (None, ())}
    if "config" not in fields and "worker_urls" not in fields:
        raise KitError("a router needs workers: give --worker-url URL, or --config FILE with [[workers]]")
    start(serve_router, fields)
