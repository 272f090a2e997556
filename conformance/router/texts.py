"""Prompts of the routing checks: reproducible, and as different or alike as a check needs."""

from __future__ import annotations

import random

WORDS = ("anvil", "bridge", "candle", "dragon", "engine", "forest", "garden", "harbor", "island", "jungle", "kettle")


def unrelated(count: int, *, size: int, seed: str) -> list[str]:
    """Return prompts of about ``size`` bytes that share no beginning: each starts with a number of its own."""
    rng = random.Random(seed)
    return [f"{rng.getrandbits(64):016x} {text(size - 17, rng)}" for _ in range(count)]


def text(size: int, rng: random.Random) -> str:
    """Return about ``size`` bytes of random words."""
    return " ".join(rng.choice(WORDS) for _ in range(size // 7))


def largest_share(counts: dict[str, int]) -> float:
    """Return the share of the worker that got most."""
    return max(counts.values()) / max(1, sum(counts.values()))
