"""The rules and experiments in force, and what they make of one request."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from random import Random

from gaugeblock.reference.router.experiments import Experiment
from gaugeblock.reference.router.front import Request
from gaugeblock.reference.router.match import Match
from gaugeblock.reference.router.policies import policy_names
from gaugeblock.reference.router.quality import QUALITIES
from gaugeblock.reference.router.rules import BANDS, DEFAULT_ROUTE, Route
from gaugeblock.reference.router.spec import TIERS, check_tiers
from gaugeblock.reference.router.tables import check_choice, check_name, check_number, inside, record_fields
from gaugeblock.reference.router.view import FAMILIES, Reading


@dataclass(frozen=True)
class Rule:
    """See :mod:`rules` for what the fields mean.

    Raises:
        ValueError: naming the field, the value and what is legal.
    """

    name: str
    match: Match = field(default_factory=Match)
    pool: str | None = None
    policy: str | None = None
    band: str | None = None
    deadline: float | None = None
    tenant: str | None = None
    tier: str | None = None
    tiers: tuple[str, ...] | None = None
    floor: str | None = None

    def __post_init__(self) -> None:
        check_name("name", self.name)
        object.__setattr__(self, "match", Match.of(self.match))
        for what in ("pool", "tenant"):
            if getattr(self, what) is not None:
                check_name(what, getattr(self, what))
        check_choice("policy", self.policy, tuple(policy_names()))
        check_choice("tier", self.tier, TIERS)
        check_choice("floor", self.floor, QUALITIES)
        if self.tiers is not None:
            object.__setattr__(self, "tiers", check_tiers("tiers", self.tiers))
            if self.tier is not None:
                raise ValueError(f"tier must not stand beside tiers; got {self.tier!r} and {', '.join(self.tiers)}")
        check_number("deadline", self.deadline, 0, above=True)

    @classmethod
    def of(cls, data: object) -> Rule:
        """Return the rule of a table; raises ValueError."""
        return data if isinstance(data, Rule) else cls(**record_fields(cls, "a rule", data))  # type: ignore[arg-type] # checked on the way in

    @property
    def route(self) -> Route:
        """What it decides."""
        tiers = (self.tier,) if self.tier else self.tiers
        decided = Route(self.pool, self.policy, self.band, self.tenant, self.deadline, tiers, self.name)
        return decided._replace(floor=self.floor)


def check_names(
    rules: Sequence[Rule],
    experiments: Sequence[Experiment],
    pools: Collection[str],
    bands: tuple[str, ...] = BANDS,
) -> None:
    """Check what rules and experiments name against what there is; without ``pools`` any name of one will do.

    Raises:
        TableError: a pool or a band that does not exist, or a name that is given twice.
    """
    legal = tuple(sorted(pools))
    for number, rule in enumerate(rules):
        with inside("rule", number, rule):
            check_choice("band", rule.band, bands)
            _check_pools(legal, (("pool", rule.pool),))
            _check_once(rule.name, rules[:number])
    for number, experiment in enumerate(experiments):
        with inside("experiment", number, experiment):
            named = [("pool", variant.pool) for variant in experiment.variants]
            _check_pools(legal, (*named, ("shadow", experiment.shadow)))
            _check_once(experiment.name, experiments[:number])


def _check_pools(legal: tuple[str, ...], named: Iterable[tuple[str, str | None]]) -> None:
    for what, pool in named:
        if legal:
            check_choice(what, pool, legal)


def _check_once(name: str, earlier: Sequence[Rule | Experiment]) -> None:
    if any(other.name == name for other in earlier):
        raise ValueError(f"name must not be given twice; got {name!r} again")


class RuleSet:
    """Rules and experiments, ready for use. ``rng`` draws for requests that carry nothing to draw by."""

    def __init__(self, rules: Sequence[Rule], experiments: Sequence[Experiment], rng: Random) -> None:
        self.rules, self.experiments = tuple(rules), tuple(experiments)
        self._rng = rng
        self._routes = [(rule.match, rule.route) for rule in rules]
        self.measures = any(match.measures for match in (*(r.match for r in rules), *(e.match for e in experiments)))
        named = [rule.policy for rule in rules]
        named += [variant.policy for experiment in experiments for variant in experiment.variants]
        self.policies = {policy for policy in named if policy is not None}

    def route(self, request: Request, reading: Reading, tenant: str | None) -> Route:
        """Decide about one request of ``tenant``, None if it has none."""
        route = next((r for match, r in self._routes if match.holds(request, reading, tenant)), DEFAULT_ROUTE)
        if tenant is not None and route.tenant is None:
            route = route._replace(tenant=tenant)
        if self.experiments and request.path in FAMILIES:
            route = self._experiment(route, request, reading)
        return route

    def _experiment(self, route: Route, request: Request, reading: Reading) -> Route:
        decided = shadowed = False
        plain = route
        for experiment in self.experiments:
            done = shadowed if experiment.shadow else decided
            if done or not experiment.match.holds(request, reading, plain.tenant):
                continue
            unit = self._unit(experiment.by, request, reading, plain.tenant)
            if experiment.shadow:
                shadowed = True
                if experiment.shadows(unit):
                    plain, route = plain._replace(shadow=experiment.shadow), route._replace(shadow=experiment.shadow)
            else:
                decided = True
                route = self._treated(route, experiment, unit)
        return route if route.variant is None else route._replace(otherwise=plain)

    def _treated(self, route: Route, experiment: Experiment, unit: str) -> Route:
        variant = experiment.draw(unit)
        if variant is None:
            return route
        return route._replace(
            pool=variant.pool or route.pool,
            policy=variant.policy or route.policy,
            tiers=(variant.tier,) if variant.tier else route.tiers,
            variant=f"{experiment.name}/{variant.name}",
        )

    def _unit(self, by: str, request: Request, reading: Reading, tenant: str | None) -> str:
        named = reading.view.session if by == "session" else tenant if by == "tenant" else None
        if named is not None:
            return named
        sent = request.head.fields.get(b"x-request-id")
        if sent:
            return sent.decode("latin-1")
        return reading.rids[0] if reading.rids else str(self._rng.random())
