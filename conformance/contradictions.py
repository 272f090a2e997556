"""Options of which one would silently undo another: they are refused with one line that names both.

``prefix`` is how the user spells options: ``--`` on the command line, ``--gb-`` under pytest.
"""

from __future__ import annotations

from collections.abc import Iterable

from gaugeblock.conformance.check import Check
from gaugeblock.conformance.selection import Selection
from gaugeblock.fixtures.errors import KitError
from gaugeblock.fixtures.faults.record import find_fault
from gaugeblock.fixtures.targets.options import TargetOptions
from gaugeblock.fixtures.targets.probe import FEATURES as ENGINE_FEATURES
from gaugeblock.fixtures.targets.router_launch import FEATURES as ROUTER_FEATURES


def refuse_contradictions(options: TargetOptions, selection: Selection, prefix: str) -> None:
    """Hold options against each other that need no catalogue of checks.

    Raises:
        KitError: which of them, and what to leave out.
    """
    _refuse_two_routers(options, prefix)
    if selection.ops and "kernels" not in selection.layers:
        raise KitError(f"{prefix}op names an op of the kernels, which this run leaves out: {_about(selection)}")
    if options.fault:
        _refuse_idle_fault(options, options.fault, selection, prefix)


def refuse_idle_names(options: TargetOptions, selection: Selection, known: dict[str, Check], prefix: str) -> None:
    """Hold the named checks and features against the layers that run.

    Raises:
        KitError: which of them would never be looked at.
    """
    for name in sorted(selection.ids):
        check = known[name]
        if check.layer not in selection.layers:
            raise KitError(
                f"{name} is a check of the layer {check.layer}, which this run leaves out: {_about(selection)}"
            )
        if selection.level == "core" and check.level != "core":
            raise KitError(f"{name} is an {check.level} check, which {prefix}level core leaves out")
    for claim in sorted(options.claims):
        layers = _layers_of(claim, known.values())
        if not layers & set(selection.layers):
            raise KitError(
                f"{prefix}claim {claim} claims a feature of the layer {' or '.join(sorted(layers))}, which this run "
                f"leaves out: {_about(selection)}"
            )


def _refuse_two_routers(options: TargetOptions, prefix: str) -> None:
    started = [name for name, value in (("router", options.router_name), ("router-cmd", options.router_cmd)) if value]
    if options.router_workers is not None and not options.router_url:
        raise KitError(f"{prefix}router-workers are the workers of a running router: name it with {prefix}router-url")
    if options.router_hosts and options.router_url:
        raise KitError(
            f"{prefix}router-hosts is for a router that the kit starts, with {prefix}router or {prefix}router-cmd"
        )
    if len(started) > 1:
        raise KitError(f"{prefix}router and {prefix}router-cmd each name a router to start: give one of them")
    if options.router_workers is not None and started:
        raise KitError(
            f"{prefix}router-workers gives the checks the router that runs, {prefix}{started[0]} another that the kit "
            "starts: give one of them"
        )
    if options.router_url and options.router_name == "reference":
        raise KitError(
            f"{prefix}router-url names your router, {prefix}router reference the kit's own: give one of them"
        )


def _refuse_idle_fault(options: TargetOptions, name: str, selection: Selection, prefix: str) -> None:
    from gaugeblock.conformance.teeth import REACH  # here, for that module knows the session

    fault = find_fault(name)
    foreign = _foreign(options).get(fault.place)
    if foreign:
        raise KitError(
            f"{prefix}fault {name} is planted in the reference {fault.place}, and {prefix}{foreign} names another one: "
            "leave one of them out"
        )
    reached = {*REACH[fault.place], fault.layer}
    if not reached & set(selection.layers):
        raise KitError(
            f"{prefix}fault {name} is felt by no layer of this run: {_about(selection)}; it is one of {fault.layer}"
        )


def _foreign(options: TargetOptions) -> dict[str, str]:
    """Return, for the places where somebody else's target stands, the option that names it."""
    named = {"engine": "engine-url"} if options.engine_urls else {}
    if options.router_cmd:
        named["router"] = "router-cmd"
    elif options.router_url:
        named["router"] = "router-url"
    elif options.router_name not in (None, "reference"):
        named["router"] = f"router {options.router_name}"
    return named


def _layers_of(feature: str, checks: Iterable[Check]) -> set[str]:
    layers = {check.layer for check in checks if check.feature == feature}
    layers |= {"engine", "load"} if feature in ENGINE_FEATURES else set()
    return layers | ({"router"} if feature in ROUTER_FEATURES else set())


def _about(selection: Selection) -> str:
    return f"it is about {', '.join(selection.layers)}"
