"""The router's own policy and those that rules name, each with its own memory."""

from __future__ import annotations

from collections.abc import Iterable

from gaugeblock.reference.router.config import RouterConfig
from gaugeblock.reference.router.policies import make_policy
from gaugeblock.reference.router.policies.base import Decision, Policy, PolicySettings, RequestView
from gaugeblock.reference.router.policies.session import SessionAffinity


def build_policy(config: RouterConfig, name: str) -> Policy:
    """Return a policy as configured, with session affinity on top if asked for and not in it."""
    settings = _settings(config)
    base = make_policy(name, settings)
    return SessionAffinity(base, settings) if config.session_affinity and not base.keeps_sessions else base


def _settings(config: RouterConfig) -> PolicySettings:
    return PolicySettings(**{name: getattr(config, name) for name in PolicySettings._fields})


class PolicySet:
    """Policies by name, made when the first rule names them. ``reads_prompt``: one of them looks at prompts.

    ``decode`` is the one of decode workers.
    """

    def __init__(self, config: RouterConfig) -> None:
        self._config = config
        self.default = build_policy(config, config.policy)
        self._named = {config.policy: self.default}
        self.decode = make_policy(config.decode_policy, _settings(config))
        self.reads_prompt = False
        self.prepare(())

    def prepare(self, names: Iterable[str]) -> None:
        """Make the policies that are not there yet."""
        for name in names:
            if name not in self._named:
                self._named[name] = build_policy(self._config, name)
        self.reads_prompt = any(policy.reads_prompt for policy in self._all())

    def get(self, name: str | None) -> Policy:
        """Return a policy that was prepared, the router's own for None."""
        return self.default if name is None else self._named[name]

    def forget(self, worker: str) -> None:
        """Drop what all of them know about a worker that has left or lost its cache."""
        for policy in self._all():
            policy.forget(worker)

    def teach(self, request: RequestView, worker: str, now: float) -> None:
        """Let all policies but that of decode workers know that a worker has got a prompt or a session."""
        for policy in self._named.values():
            policy.record(request, Decision(worker, policy.name, "warm"), now)

    def _all(self) -> list[Policy]:
        return [*self._named.values(), self.decode]
