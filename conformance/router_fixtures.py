"""Fixtures of the checks on a router: a lab with scripted workers, and a live router in front of engines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from gaugeblock.conformance.outcome import unsupported, untried
from gaugeblock.conformance.plugin import OPTIONS, TARGETS
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.fixtures.faults.record import find_fault
from gaugeblock.fixtures.targets.options import TargetOptions
from gaugeblock.fixtures.targets.router import RouterBench
from gaugeblock.fixtures.targets.router_hosts import HostsBench
from gaugeblock.fixtures.targets.router_launch import (
    LabConfig,
    RouterLauncher,
    command_launcher,
    launcher,
    reference_launcher,
)
from gaugeblock.fixtures.targets.router_live import LiveRouter, embedded_live, routed_engines
from gaugeblock.fixtures.targets.router_policies import OwnPolicies
from gaugeblock.fixtures.targets.router_probe import infer
from gaugeblock.fixtures.targets.router_running import RunningBench, parse_workers, running_launcher

LIVE_TIMEOUT = 60.0
"""Total seconds of one call to a live router, unless --gb-timeout says otherwise: its engines may run on a CPU."""


@pytest.fixture(scope="session")
def router_bench(request: pytest.FixtureRequest) -> Iterator[RouterBench]:
    """The labs of this session; untried when all that the user named is a running router."""
    options = request.config.stash[OPTIONS]
    chosen = _launcher(options)
    if chosen is None:
        untried(
            "a running router meets scripted workers in the places of its own: name those with --router-workers "
            "http://HOST:PORT,…, or let the kit start a router with --router NAME or --router-cmd CMD (pytest: "
            "--gb-router-workers, --gb-router, --gb-router-cmd)"
        )
    target: dict[str, object] = {"name": chosen.name, "features": sorted(chosen.features)}
    request.config.stash[TARGETS]["router"] = target
    kind = RunningBench if chosen.running else HostsBench if options.router_hosts else RouterBench
    bench = kind(chosen)
    try:
        if chosen.inferred:
            found = infer(bench)
            target |= {"inferred": found.features, "order": found.order, "features": sorted(bench.launcher.features)}
        if chosen.running:
            target |= {"url": chosen.running.url, "workers": list(chosen.running.workers)}
        yield bench
    finally:
        bench.close()


@pytest.fixture
def router_lab(router_bench: RouterBench) -> Iterator[LabFactory]:
    """Call it with a policy and what else the check needs; see :class:`LabFactory`."""
    try:
        yield LabFactory(router_bench)
    finally:
        router_bench.end_check()


@pytest.fixture
def own_policies(request: pytest.FixtureRequest) -> OwnPolicies:
    """The reference router's policies in this process; unsupported when somebody else's router is under check."""
    chosen = _launcher(request.config.stash[OPTIONS])
    if chosen is None or chosen.name != "reference":
        unsupported("golden decisions are those of the reference router's own policies, asked without HTTP")
    return OwnPolicies()


@pytest.fixture(scope="session")
def live_router(request: pytest.FixtureRequest) -> Iterator[LiveRouter]:
    """The user's running router, or the router under check in front of the named engines, or of scripted workers."""
    options = request.config.stash[OPTIONS]
    timeout = options.request_timeout or LIVE_TIMEOUT
    if options.router_url and not options.router_workers:
        request.config.stash[TARGETS]["router"] = {"url": options.router_url, "engines": list(options.engine_urls)}
        yield LiveRouter(options.router_url, options.engine_urls, api_key=options.api_key, timeout=timeout)
        return
    if options.router_workers:
        bench: RouterBench = request.getfixturevalue("router_bench")
        assert bench.launcher.running is not None
        lab = bench.lab(LabConfig(workers=len(bench.launcher.running.workers)), fresh=False)
        yield LiveRouter(lab.url, [worker.url for worker in lab.workers], timeout=timeout)
        return
    chosen = _launcher(options)
    assert chosen is not None
    with _before_engines(chosen, options.engine_urls) as (url, engines):
        yield LiveRouter(url, engines, api_key=options.api_key, timeout=timeout)


def _launcher(options: TargetOptions) -> RouterLauncher | None:
    if options.router_cmd:
        return command_launcher(options.router_cmd, options.claims)
    if options.router_name and options.router_name != "reference":
        return launcher(options.router_name)
    if options.router_url and options.router_workers:
        return running_launcher(options.router_url, parse_workers(options.router_workers), options.claims)
    if options.router_url and not options.router_name:
        return None
    fault = options.fault if options.fault and find_fault(options.fault).place == "router" else None
    return reference_launcher(fault)


@contextmanager
def _before_engines(chosen: RouterLauncher, engine_urls: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, ...]]]:
    if engine_urls:
        with routed_engines(chosen, engine_urls) as url:
            yield url, engine_urls
    else:
        with embedded_live(chosen) as lab:
            yield lab.url, tuple(worker.url for worker in lab.workers)
