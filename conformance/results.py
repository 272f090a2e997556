"""From pytest's reports to one result a check and target."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from gaugeblock.conformance.check import Check
from gaugeblock.conformance.outcome import NotRun, Outcome, worst
from gaugeblock.fixtures.errors import KitError

MESSAGE_LIMIT = 4000  # characters of a failure message kept in the verdict


@dataclass
class Result:
    """What one check came to on one target. ``expected_failure`` is the user's reason to expect that it fails.

    ``beyond`` says that the kit could not set up what it needs, ``untried`` that it could, had the user named it.
    """

    check: Check
    target: str
    outcomes: list[Outcome] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    evidence: list[Any] = field(default_factory=list)
    seconds: float = 0.0
    expected_failure: str | None = None
    beyond: bool = False
    untried: bool = False

    @property
    def outcome(self) -> Outcome:
        """The worst of its runs."""
        return worst(self.outcomes)

    @property
    def counts_as_failure(self) -> bool:
        """Failed without being expected to, or expected to fail and passed."""
        return self.outcome is Outcome.FAILED and self.expected_failure is None

    def add(self, outcome: Outcome, message: str) -> None:
        """Record one run or one phase of a run."""
        self.outcomes.append(outcome)
        if message and message not in self.messages:
            self.messages.append(message)


def judge(call: pytest.CallInfo[Any]) -> tuple[Outcome, str]:
    """Map what a phase raised to an outcome and a message (empty for a pass)."""
    if call.excinfo is None:
        return Outcome.PASSED, ""
    error = call.excinfo.value
    if isinstance(error, NotRun):
        return error.outcome, str(error.msg)
    if isinstance(error, pytest.skip.Exception):
        return Outcome.SKIPPED, str(error.msg)
    return (Outcome.FAILED if all(map(_is_targets, _leaves(error))) else Outcome.ERROR), describe(error)


def describe(error: BaseException) -> str:
    """Return what an exception says, with the notes that Hypothesis adds, cut to a readable length."""
    parts = []
    for leaf in _leaves(error):
        # Behind an assertion's own message pytest repeats the comparison: said already, with the values.
        text = str(leaf).strip().partition("\nassert ")[0]
        known = isinstance(leaf, AssertionError | pytest.fail.Exception | KitError)
        parts.append(text if known and text else f"{type(leaf).__name__}: {text}")
        parts += getattr(leaf, "__notes__", [])
    message = "\n".join(parts)
    return message if len(message) <= MESSAGE_LIMIT else message[:MESSAGE_LIMIT] + " … (cut)"


def _is_targets(error: BaseException) -> bool:
    return isinstance(error, AssertionError | pytest.fail.Exception)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
