"""How a check on a router says what it needs."""

from __future__ import annotations

from typing import Any

from gaugeblock.conformance.outcome import beyond, inconclusive, unsupported
from gaugeblock.fixtures.targets.router import RouterBench, RouterLab
from gaugeblock.fixtures.targets.router_launch import FEATURES, POLICY_FEATURES, LabConfig
from gaugeblock.fixtures.targets.router_running import Unsettled


class LabFactory:
    """The fixture ``router_lab``.

    ``router_lab("session", needs=("breakers",), workers=2, fresh=True)`` returns a lab; a router that does not claim
    what is needed ends the check as unsupported. ``fresh``: the check changes the router's state (breakers, learnt
    prefixes of dead workers), so it must not share its lab.
    """

    def __init__(self, bench: RouterBench) -> None:
        self.launcher = bench.launcher
        self._bench = bench

    def __call__(
        self, policy: str = "round_robin", *, needs: tuple[str, ...] = (), fresh: bool = False, **settings: Any
    ) -> RouterLab:
        """Return a lab; ``settings`` are the fields of ``LabConfig``."""
        wanted = {*needs, *([POLICY_FEATURES[policy]] if policy in POLICY_FEATURES else [])}
        missing = sorted(wanted - self.launcher.features)
        if missing:
            needed = "; ".join(f"{name} ({FEATURES[name]})" for name in missing)
            unsupported(f"the router {self.launcher.name!r} does not claim {needed}")
        config = LabConfig(policy=policy, **settings)
        reason = self._bench.beyond(config, fresh=fresh)
        if reason:
            beyond(reason)
        try:
            return self._bench.lab(config, fresh=fresh)
        except Unsettled as trouble:
            inconclusive(str(trouble))
