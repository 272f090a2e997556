"""The ``pytest11`` entry point: options and markers, nothing else until a ``--gb…`` option is given.

Imports neither torch nor the checks, so that every pytest run beside an installed gaugeblock stays as fast as before.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.options import TargetOptions

OPTIONS: pytest.StashKey[TargetOptions] = pytest.StashKey()
"""The targets of this run, for fixtures: ``request.config.stash[OPTIONS]``."""

TARGETS: pytest.StashKey[dict[str, Any]] = pytest.StashKey()
"""What fixtures learned of the targets (dialect, version, features), for the verdict's ``target``."""

MARKERS = (
    "slow: takes more than about ten seconds",
    "gpu: needs an NVIDIA GPU",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the ``--gb…`` options; `gaugeblock verify --help` explains them at length."""
    group = parser.getgroup("gaugeblock", "gaugeblock: conformance of an LLM serving stack")
    add = group.addoption
    add("--gb", action="store_true", help="check the embedded reference stack")
    add("--gb-engine-url", action="append", default=[], metavar="URL", help="an engine endpoint to check; repeatable")
    add("--gb-router-url", metavar="URL", help="a running router in front of real engines")
    add("--gb-router-workers", metavar="URLS", help="worker addresses of the running router, which the kit takes over")
    add(
        "--gb-router-hosts",
        action="store_true",
        help="put router and scripted workers at network addresses of their own",
    )
    add("--gb-router-cmd", metavar="CMD", help="starts your router: 'cmd … {worker_urls} {port}'")
    add("--gb-router", metavar="NAME", help="a router that the kit can start: reference, sglang-router, smg")
    add("--gb-kernels", metavar="MODULE", help="a module whose ops are held to the kernel contracts")
    add("--gb-kv", metavar="MODULE", help="a module (or MODULE:FACTORY) whose KV manager is held to the kv checks")
    add("--gb-int8", metavar="MODULE", help="a module whose INT8 linear layer is held to the hybrid checks of INT8")
    add("--gb-op", action="append", default=[], metavar="NAME", help="of the kernels only this op; repeatable")
    add("--gb-model", metavar="PATH", help="the model's Hugging Face folder, for tokenizer and oracle")
    add("--gb-api-key-env", default="GAUGEBLOCK_API_KEY", metavar="VAR", help="variable that holds the API key")
    add("--gb-timeout", type=float, metavar="SECONDS", help="total limit of one request")
    add("--gb-claim", action="append", default=[], metavar="FEATURE", help="a feature that the target must support")
    add("--gb-check", action="append", default=[], metavar="ID", help="run only this check; repeatable")
    add("--gb-level", choices=("core", "extended"), default="extended", help="core: leave extended checks out")
    add("--gb-skip", action="append", default=[], metavar="ID=REASON", help="skip a check, with a reason")
    add("--gb-expected-failures", metavar="FILE", help="lines `ID: reason`; one that passes fails the run")
    add("--gb-fault", metavar="ID", help="plant a fault in the embedded reference (see `gaugeblock faults`)")
    add("--gb-gates-except", metavar="LAYER", help="of every other layer run the smoke gate alone")
    add("--gb-update-golden", action="store_true", help="make the golden cases anew first, and say what changed")
    add("--gb-out", metavar="DIR", help="write verdict.json, report.html there")


def is_active(config: pytest.Config) -> bool:
    """Whether any option of the kit was given."""
    targets = ("gb_engine_url", "gb_router_url", "gb_router_cmd", "gb_router", "gb_kernels", "gb_kv", "gb_int8")
    names = ("gb", *targets, "gb_check", "gb_fault", "gb_update_golden")
    return any(config.getoption(name, default=None) for name in names)


def pytest_configure(config: pytest.Config) -> None:
    """Register markers always, and the kit's session and fixtures when it was asked for."""
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)
    if not is_active(config):
        return
    from gaugeblock.conformance.session import KitSession

    config.pluginmanager.register(KitSession.from_config(config), "gaugeblock-session")
    for path in sorted(Path(__file__).parent.glob("*_fixtures.py")):
        # Not import_plugin: it warns of a module that is imported already, which ends a run that makes warnings errors.
        name = f"gaugeblock.conformance.{path.stem}"
        if not config.pluginmanager.has_plugin(name):
            config.pluginmanager.register(importlib.import_module(name), name)
