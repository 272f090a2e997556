"""One request on its way through the router, and the receipt that tells of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from gaugeblock.reference.router.admission import Visit
from gaugeblock.reference.router.front import Request
from gaugeblock.reference.router.http1 import Header
from gaugeblock.reference.router.policies.base import Decision
from gaugeblock.reference.router.reply import Reply
from gaugeblock.reference.router.rules import DEFAULT_ROUTE, Route
from gaugeblock.reference.router.spec import DEFAULT_POOL, TIERS, WorkerSpec
from gaugeblock.reference.router.view import Reading


@dataclass(slots=True)
class Journey:
    """What was read of a request, where it may go, which workers it has seen, and when it must be over (loop time).

    ``role`` is that of the workers that may take it alone; ``prefill`` names the other half of a pair, with ``@`` and
    its data-parallel rank if the router has chosen one. ``called_off`` are workers that began on it for a pair whose
    other half failed.
    ``visit`` is its place in the queue, None where nothing is limited.
    """

    request: Request
    reply: Reply
    reading: Reading
    deadline: float | None
    route: Route = DEFAULT_ROUTE
    tried: set[str] = field(default_factory=set)
    decision: Decision | None = None
    attempts: int = 0
    refused: int = 0  # of these the ones whose worker could not be reached: it has got nothing of the request
    role: str = "regular"
    prefill: str | None = None
    called_off: set[str] = field(default_factory=set)
    visit: Visit | None = None
    spec: WorkerSpec | None = None  # of the worker that was picked last
    tiered: bool = False  # the workers are of several tiers, so the answer tells which one it is of

    def settle(self, decision: Decision, spec: WorkerSpec) -> None:
        """Note what was decided, and that a worker of a lower tier stands in for those of the preferred one."""
        degraded = TIERS.index(spec.tier) > TIERS.index(self.route.order[0])
        self.decision, self.spec = decision._replace(reason="degraded") if degraded else decision, spec

    def receipt(self, *, worker: bool = True, unserved: str = "no_worker") -> list[Header]:
        """Return the route receipt. An error of the router's own does not name the worker.

        ``unserved`` is the reason that it gives for a request that no worker was picked for.
        """
        decision = self.decision
        waited = self.visit.receipt() if self.visit is not None else ()
        if decision is None:
            told = [*waited, *self._routed()]
            return [(b"x-gaugeblock-reason", unserved.encode()), (b"x-gaugeblock-attempts", b"0"), *told]
        return [
            *([(b"x-gaugeblock-worker", decision.worker.encode())] if worker else []),
            *([(b"x-gaugeblock-prefill-worker", self.prefill.encode())] if worker and self.prefill else []),
            (b"x-gaugeblock-policy", decision.policy.encode()),
            (b"x-gaugeblock-reason", decision.reason.encode()),
            (b"x-gaugeblock-attempts", b"%d" % self.attempts),
            (b"x-gaugeblock-predicted-prefix", b"%d" % decision.matched),
            *waited,
            *self._routed(),
        ]

    def _routed(self) -> list[Header]:
        """What rules, experiments, pools and tiers decided; nothing where there are none."""
        said: list[Header] = []
        route, spec = self.route, self.spec
        if route.rule is not None:
            said.append((b"x-gaugeblock-rule", route.rule.encode()))
        if route.variant is not None:
            said.append((b"x-gaugeblock-variant", route.variant.encode()))
        if spec is not None and spec.pool != DEFAULT_POOL:
            said.append((b"x-gaugeblock-pool", spec.pool.encode()))
        if spec is not None and (self.tiered or spec.tier != TIERS[0]):
            said.append((b"x-gaugeblock-tier", spec.tier.encode()))
        if spec is not None and spec.quality is not None:
            said.append((b"x-gaugeblock-quality", spec.quality.encode()))
        return said
