"""``gaugeblock verify``: run the checks, say which layer breaks first, write the verdict."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from gaugeblock.conformance.check import LAYERS
from gaugeblock.conformance.cli.terminal import Terminal
from gaugeblock.conformance.out import prepare_out
from gaugeblock.conformance.plugin import OPTIONS
from gaugeblock.conformance.session import KitSession, read_options
from gaugeblock.conformance.verdict import EXIT_CODES, VERDICT
from gaugeblock.fixtures.errors import EnvironmentFault, legal_name

IN_PROCESS = ("kernels", "prefill", "kv", "hybrid")  # layers that need torch in this process


@click.command()
@click.option("--engine-url", multiple=True, metavar="URL", help="An engine endpoint; repeat it for several.")
@click.option("--router-url", metavar="URL", help="A running router in front of real engines.")
@click.option(
    "--router-workers",
    metavar="URLS",
    help="Its worker addresses, comma-separated and free: the kit listens there as scripted workers.",
)
@click.option(
    "--router-cmd",
    metavar="CMD",
    help="Starts your router: 'cmd … {worker_urls} {port}'; --flag={worker_url} repeats.",
)
@click.option("--router", metavar="NAME", help="A router the kit can start: reference, sglang-router, smg.")
@click.option("--router-hosts", is_flag=True, help="Router and scripted workers at addresses of their own (Linux).")
@click.option("--kernels", metavar="MODULE", help="A module whose ops are held to the kernel contracts.")
@click.option("--kv", metavar="MODULE", help="A module whose KV manager is held to the checks of tiers and prefixes.")
@click.option("--int8", metavar="MODULE", help="A module whose quantize and linear are held to the checks of INT8.")
@click.option("--op", "ops", multiple=True, metavar="NAME", help="Of the kernels only this op; repeatable.")
@click.option("--model", metavar="PATH", help="The model's folder: enables the tokenizer, template and oracle checks.")
@click.option("--layer", "layers", multiple=True, metavar="LAYER", help=f"Only this layer ({', '.join(LAYERS)}).")
@click.option("--check", "ids", multiple=True, metavar="ID", help="Only this check (see `gaugeblock checks`).")
@click.option("--level", type=click.Choice(["core", "extended"]), default="extended", show_default=True)
@click.option("--claim", "claims", multiple=True, metavar="FEATURE", help="A feature the target must support.")
@click.option("--skip", "skips", multiple=True, metavar="ID=REASON", help="Skip a check; the reason is mandatory.")
@click.option("--expected-failures", metavar="FILE", help="Lines `ID: reason`; one that passes fails the run.")
@click.option("--api-key-env", default="GAUGEBLOCK_API_KEY", show_default=True, metavar="VAR")
@click.option("--timeout", type=float, metavar="SECONDS", help="Total limit of one request.")
@click.option("--out", metavar="DIR", help="Write verdict.json, report.html and junit.xml there.")
@click.option("--fault", metavar="ID", help="Plant a fault in the embedded reference (see `gaugeblock faults`).")
@click.option(
    "--update-golden",
    "--gb-update-golden",
    is_flag=True,
    help="First make the golden cases of the layers anew and say what changed; embedded reference only.",
)
@click.option("--gates-except", metavar="LAYER", hidden=True)  # what `teeth` uses to look for collateral cheaply
def verify(layers: tuple[str, ...], out: str | None, **given: Any) -> int:
    """Check a serving stack and end with one verdict.

    Without a URL the embedded reference stack is checked. Exit codes: 0 conformant, 1 nonconformant, 2 usage,
    3 partial or inconclusive, 4 the kit or the environment failed.
    """
    options = {_NAMES.get(key, f"gb_{key}"): value for key, value in given.items()}
    layers = tuple(legal_name("layer", name, LAYERS) for name in layers)
    layers = layers or (("kernels",) if given["ops"] else ())  # an op is one of the kernels
    read_options(options.__getitem__, "--", layers)  # misuse ends here, before anything starts
    prepare_out(out, [VERDICT])
    args = _pytest_args(options)
    if out is not None:
        args += ["--gb-out", out, f"--junitxml={Path(out) / 'junit.xml'}", "-o", "junit_suite_name=gaugeblock"]
    return run_pytest(args, layers)


def run_pytest(args: list[str], layers: tuple[str, ...]) -> int:
    """Run the checks of ``layers`` (empty: those that the options speak about) and return the exit code."""
    # The user's own pytest settings and plugins have no say in a verdict.
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    os.environ.pop("PYTEST_ADDOPTS", None)
    # The in-process models are small: a second thread costs more in hand-over than it gives on a busy machine.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    frame = _Frame(layers)
    fixed = ["-c", os.devnull, f"--rootdir={Path.cwd()}", "--import-mode=importlib", "-p", "no:cacheprovider"]
    plugins = ["-p", "no:terminal", "-p", "pytest_timeout", "-p", "gaugeblock.conformance.plugin"]
    try:
        packages = frame.packages(args)
        status = pytest.main([*fixed, *plugins, "--gb", *args, "--pyargs", *packages], plugins=[frame])
    finally:
        frame.terminal.close()
    return frame.conclude(int(status))


WAITING = "router"
"""The layer whose checks mostly wait; it runs beside the others."""


class _Frame:
    """Joins the terminal to the kit's session: the one pytest plugin that only `verify` has."""

    def __init__(self, layers: tuple[str, ...]) -> None:
        self.layers = layers
        self.terminal = Terminal()
        self.session: KitSession | None = None

    def packages(self, args: list[str]) -> list[str]:
        """Return the check packages to collect."""
        named = any(a in args for a in ("--gb-engine-url", "--gb-router-url", "--gb-router-cmd", "--gb-router"))
        layers = self.layers or (("engine", "router", "load") if named else tuple(LAYERS))
        modules = (("kernels", "--gb-kernels"), ("kv", "--gb-kv"), ("hybrid", "--gb-int8"))
        lower = [layer for layer, option in modules if option in args]
        if lower and not self.layers:
            layers = (*lower, *(layers if named else ()))
        if any(layer in IN_PROCESS for layer in layers) or not named:
            _require_torch()
        return [f"gaugeblock.conformance.{layer}" for layer in LAYERS if layer in layers]

    @pytest.hookimpl(trylast=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        """Attach the terminal once the kit's plugin has made its session."""
        session = config.pluginmanager.get_plugin("gaugeblock-session")
        assert isinstance(session, KitSession)
        if self.layers:
            scope = config.stash[OPTIONS].layers() or tuple(LAYERS)
            session.selection = session.selection.narrowed(self.layers, scope)
            session.run.selection = session.selection
        session.prefix = "--"
        session.progress = self.terminal
        session.apart = WAITING
        self.session = session

    def conclude(self, status: int) -> int:
        """Print the summary and return the exit code.

        Raises:
            EnvironmentFault: a file of the run could not be written.
        """
        if self.session is None or (run := self.session.run).verdict is None:
            return EXIT_CODES["usage"] if status == EXIT_CODES["usage"] else EXIT_CODES["error"]
        self.terminal.summary(run.verdict, None if run.unwritten else self.session.out)
        if run.unwritten:
            raise EnvironmentFault(run.unwritten)
        return EXIT_CODES[run.verdict["result"]]


_NAMES = {"ids": "gb_check", "ops": "gb_op", "claims": "gb_claim", "skips": "gb_skip"}


def _pytest_args(options: dict[str, Any]) -> list[str]:
    """Spell the plugin's options as arguments."""
    args: list[str] = []
    for key, value in options.items():
        for item in value if isinstance(value, tuple) else (value,):
            if item is True:
                args.append("--" + key.replace("_", "-"))
            elif item is not None and item is not False:
                args += ["--" + key.replace("_", "-"), str(item)]
    return args


def _require_torch() -> None:
    missing = [name for name in ("torch", "triton", "safetensors") if importlib.util.find_spec(name) is None]
    if missing:
        raise EnvironmentFault(
            f"the embedded reference stack needs {', '.join(missing)}: pip install 'gaugeblock[gpu]' "
            f"(for {sys.executable}), or name what to check with --engine-url or --router-url"
        )
