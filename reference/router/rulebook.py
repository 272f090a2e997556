"""The rules in force, and how others take their place: all at once, or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from gaugeblock.reference.router.config import RouterConfig
from gaugeblock.reference.router.config_file import load_config, parse_rules
from gaugeblock.reference.router.experiments import Experiment
from gaugeblock.reference.router.policy_set import PolicySet
from gaugeblock.reference.router.registry import Registry
from gaugeblock.reference.router.ruleset import Rule, RuleSet


class RuleBook:
    """Holds the rules; ``rules`` is None while there are none, so that routers without rules pay nothing."""

    def __init__(self, config: RouterConfig, policies: PolicySet, registry: Registry, rng: Random) -> None:
        self._config, self._policies, self._registry, self._rng = config, policies, registry, rng
        self._version = 0
        self.rules: RuleSet | None = None
        self._put(config.rules, config.experiments)

    def reload(self, body: bytes) -> None:
        """Take rules and experiments from ``body``, TOML, or from the configuration file if it is empty.

        Of the file everything else is checked but not taken: it needs a restart.

        Raises:
            ValueError: something in it is wrong, and nothing has changed.
        """
        if body.strip():
            pools = {worker.spec.pool for worker in self._registry.workers.values()}
            pools |= {spec.pool for spec in self._config.specs}
            self._put(*parse_rules(_utf8(body), "the body", pools, self._config.bands))
        elif self._config.config_file is None:
            raise ValueError("there is no file to read: start with --config FILE, or send the rules as TOML")
        else:
            config, _, _ = load_config(self._config.config_file)
            self._put(config.rules, config.experiments)

    def _put(self, rules: Sequence[Rule], experiments: Sequence[Experiment]) -> None:
        new = RuleSet(rules, experiments, self._rng) if rules or experiments else None
        if new is not None:
            self._policies.prepare(new.policies)
        self.rules = new
        self._version += 1

    def describe(self) -> dict[str, Any]:
        """Return the names in force, and how often they have changed."""
        rules, experiments = (self.rules.rules, self.rules.experiments) if self.rules else ((), ())
        return {
            "version": self._version,
            "rules": [rule.name for rule in rules],
            "experiments": [experiment.name for experiment in experiments],
        }


def _utf8(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"the body is not UTF-8: {error}") from None
