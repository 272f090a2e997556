"""Eviction policies by name: each decides the order in which pages go, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

from gaugeblock.reference.kv.policies.arc import ARC
from gaugeblock.reference.kv.policies.base import Policy
from gaugeblock.reference.kv.policies.gdsf import GDSF
from gaugeblock.reference.kv.policies.lru import LRU
from gaugeblock.reference.kv.policies.s3fifo import S3FIFO
from gaugeblock.reference.kv.policies.size import Size

POLICIES: dict[str, Callable[[int], Policy]] = {"lru": LRU, "size": Size, "gdsf": GDSF, "arc": ARC, "s3fifo": S3FIFO}
"""Makes a policy for a tier of that many bytes."""

__all__ = ["POLICIES", "Policy"]
