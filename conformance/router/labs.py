"""How a check on a router says what it needs."""

from __future__ import annotations

from typing import Any

from gaugeblock.conformance.outcome import beyond, inconclusive, skipped, unsupported
from gaugeblock.fixtures.hosts.network import NoHosts
from gaugeblock.fixtures.targets.router import RouterBench, RouterLab
from gaugeblock.fixtures.targets.router_hosts import HostsLab
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
        self._require(policy, needs)
        config = LabConfig(policy=policy, **settings)
        reason = self._bench.beyond(config, fresh=fresh)
        if reason:
            beyond(reason)
        try:
            return self._bench.lab(config, fresh=fresh)
        except Unsettled as trouble:
            inconclusive(str(trouble))
        except NoHosts as trouble:
            skipped(str(trouble))

    def hosts(self, policy: str = "round_robin", *, needs: tuple[str, ...] = (), workers: int = 3) -> HostsLab:
        """Return a lab of its own whose router and workers are at hosts of their own; skipped where there are none."""
        self._require(policy, needs)
        if self.launcher.running is not None:
            beyond("needs a router that the kit starts at a host of its own: name one with --router or --router-cmd")
        try:
            return self._bench.special(HostsLab, LabConfig(policy=policy, workers=workers))
        except NoHosts as trouble:
            skipped(str(trouble))

    def _require(self, policy: str, needs: tuple[str, ...]) -> None:
        wanted = {*needs, *([POLICY_FEATURES[policy]] if policy in POLICY_FEATURES else [])}
        missing = sorted(wanted - self.launcher.features)
        if missing:
            needed = "; ".join(f"{name} ({FEATURES[name]})" for name in missing)
            unsupported(f"the router {self.launcher.name!r} does not claim {needed}")
