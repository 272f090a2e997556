"""How a check says what it needs of its target."""

from __future__ import annotations

from gaugeblock.conformance.outcome import unsupported
from gaugeblock.fixtures.targets.engine import EngineTarget
from gaugeblock.fixtures.targets.probe import FEATURES


def require(target: EngineTarget, *features: str) -> None:
    """End the check as unsupported when the target lacks one of ``features``; the reason says what would offer it."""
    missing = [name for name in features if name not in target.features]
    if missing:
        needs = "; ".join(f"{name} ({FEATURES[name]})" for name in missing)
        unsupported(f"{target.url} ({target.dialect}) does not offer {needs}")
