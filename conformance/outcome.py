"""The seven outcomes of a check and how a check says each of them."""

from __future__ import annotations

from enum import StrEnum
from typing import NoReturn

from _pytest.outcomes import Skipped  # pytest.skip.Exception, with a type


class Outcome(StrEnum):
    """What a check can come to. ``WORST_FIRST`` orders them for aggregation."""

    PASSED = "passed"
    FAILED = "failed"
    UNSUPPORTED = "unsupported"
    BLOCKED = "blocked"
    INCONCLUSIVE = "inconclusive"
    SKIPPED = "skipped"
    ERROR = "error"


WORST_FIRST = (
    Outcome.ERROR,
    Outcome.FAILED,
    Outcome.BLOCKED,
    Outcome.INCONCLUSIVE,
    Outcome.SKIPPED,
    Outcome.PASSED,  # a pass beside an unsupported variant of the same check is a pass
    Outcome.UNSUPPORTED,
)


def worst(outcomes: list[Outcome]) -> Outcome:
    """Return the outcome that stands for several runs of one check."""
    return min(outcomes, key=WORST_FIRST.index)


class NotRun(Skipped):
    """A check that ended without a judgement; pytest shows it as a skip, the verdict by its own name."""

    outcome = Outcome.SKIPPED


class Unsupported(NotRun):
    """The target does not claim the feature."""

    outcome = Outcome.UNSUPPORTED


class Beyond(Unsupported):
    """The kit cannot set up what the check needs in front of this target; no claim is broken by that."""


class Untried(Unsupported):
    """The user has not named what the check needs of the target, which the verdict's message then says."""


class Blocked(NotRun):
    """A gate below failed."""

    outcome = Outcome.BLOCKED


class Inconclusive(NotRun):
    """Too noisy to judge, or the client was the bottleneck."""

    outcome = Outcome.INCONCLUSIVE


def unsupported(reason: str) -> NoReturn:
    """End the check: the target does not claim what it needs. ``reason`` names the remedy."""
    raise Unsupported(reason)


def beyond(reason: str) -> NoReturn:
    """End the check as unsupported although the feature may be claimed: ``reason`` says what would make it possible."""
    raise Beyond(reason)


def untried(reason: str) -> NoReturn:
    """End the check as unsupported for want of something that the user can name: ``reason`` says what."""
    raise Untried(reason)


def inconclusive(reason: str) -> NoReturn:
    """End the check without a judgement; ``reason`` carries the measured noise."""
    raise Inconclusive(reason)


def skipped(reason: str) -> NoReturn:
    """End the check because the user or the machine rules it out; ``reason`` names the remedy."""
    raise NotRun(reason)
