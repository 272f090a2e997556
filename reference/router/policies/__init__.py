"""Routing policies, one file each; a new file with an ``@policy("name")`` class is found by itself."""

from __future__ import annotations

import importlib
import pkgutil

from gaugeblock.reference.router.policies.base import Policy, PolicySettings, registered


def _load() -> None:
    for info in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{info.name}")


def policy_names() -> list[str]:
    """Return the legal names of base policies."""
    _load()
    return sorted(registered)


def make_policy(name: str, settings: PolicySettings) -> Policy:
    """Return a new base policy.

    Raises:
        ValueError: naming the legal policies.
    """
    names = policy_names()
    if name not in names:
        raise ValueError(f"policy must be one of {', '.join(names)}; got {name!r}")
    return registered[name](settings)
