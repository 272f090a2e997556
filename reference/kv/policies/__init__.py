"""Eviction policies by name: each decides the order in which pages go, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

from gaugeblock.reference.kv.policies.base import Policy
from gaugeblock.reference.kv.policies.lru import LRU

POLICIES: dict[str, Callable[[int], Policy]] = {"lru": LRU}
"""Makes a policy for a tier of that many bytes."""

__all__ = ["POLICIES", "Policy"]
