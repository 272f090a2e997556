"""A lane: an engine, what it runs on, how good it is and how much it takes; and how it does at the moment."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from gaugeblock.reference.engine.types import EventSink, GenerateRequest
from gaugeblock.reference.hybrid.qos import LOW, LaneView
from gaugeblock.reference.router.breaker import Breaker, Outcome
from gaugeblock.reference.router.quality import QUALITIES
from gaugeblock.reference.router.spec import TIERS
from gaugeblock.reference.router.tables import check_choice, check_name, check_whole

log = logging.getLogger(__name__)
MEMORY = 30.0  # seconds that a measured speed counts: after one bad minute a lane gets the chance to be measured again
SMOOTHING = 0.2  # of the newest measurement in the mean of the last ones


class LaneEngine(Protocol):
    """What generates: :class:`gaugeblock.reference.engine.engine.Engine`, or anything like it.

    Events may come on any thread; each request gets exactly one that carries ``finish``, also when the engine crashes.
    """

    @property
    def crash(self) -> BaseException | None:
        """What it died of; None while it serves. What is submitted to a dead one ends at once."""

    def submit(self, request: GenerateRequest, sink: EventSink) -> None:
        """Begin; raises ``RequestError`` for what it will never serve."""

    def abort(self, rid: str | None) -> Any:
        """End a request; unknown ids are ignored."""

    def restart(self) -> None:
        """Serve again after a crash, without anything of before but the weights; raises what keeps it from that."""


class Condition(StrEnum):
    """Of a lane's engine: it serves, has died and will be restarted, or stays dead."""

    SERVES = "serves"
    RESTARTS = "restarts"
    DOWN = "down"


@dataclass(frozen=True)
class Lane:
    """One lane. ``tier`` is what it runs on, ``quality`` what it computes in, ``revision`` names the model's weights.

    ``capacity`` requests run at a time. Of those at most ``low_capacity`` have low priority: all in a CPU lane, a
    quarter but at least one in a GPU lane, unless it is given.

    Raises:
        ValueError: naming the field, the value and what is legal.
    """

    name: str
    engine: LaneEngine = field(compare=False)
    tier: str
    quality: str
    revision: str
    capacity: int = 8
    low_capacity: int | None = None

    def __post_init__(self) -> None:
        check_name("name", self.name)
        check_choice("tier", self.tier, TIERS, optional=False)
        check_choice("quality", self.quality, QUALITIES, optional=False)
        check_whole("capacity", self.capacity, 1)
        if self.low_capacity is None:
            share = self.capacity if self.tier == TIERS[-1] else max(1, self.capacity // 4)
            object.__setattr__(self, "low_capacity", share)
        check_whole("low_capacity", self.low_capacity, 0, self.capacity)


def check_lanes(lanes: Sequence[tuple[str, str]]) -> None:
    """Raise ``ValueError`` if lanes of these names and revisions cannot stand in for each other."""
    if not lanes:
        raise ValueError("at least one lane is needed")
    names = [name for name, _ in lanes]
    if len(set(names)) < len(names):
        raise ValueError(f"lanes must have different names; got {', '.join(names)}")
    first, wanted = lanes[0]
    for name, revision in lanes[1:]:
        if revision != wanted:
            raise ValueError(
                f"the lane {name!r} serves another revision of the model than the lane {first!r}: "
                f"{revision[:16]}, not {wanted[:16]}; all lanes must answer as one model does"
            )


class Speed:
    """A smoothed time per token, forgotten when it is old."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._value: float | None = None
        self._at = 0.0

    def note(self, seconds: float) -> None:
        """Take one measurement in."""
        known = self.value
        self._value = seconds if known is None else known + SMOOTHING * (seconds - known)
        self._at = self._clock()

    @property
    def value(self) -> float | None:
        """Seconds per token, None if unknown."""
        return self._value if self._clock() - self._at < MEMORY else None


class LaneState:
    """What a front keeps of a lane.

    An engine that has died is restarted ``pause`` seconds later, ``restarts`` times in a row at most: an answer to its
    end counts them anew.
    """

    def __init__(
        self, lane: Lane, breaker: Breaker, clock: Callable[[], float], restarts: int = 0, pause: float = 0.0
    ) -> None:
        self.lane, self.breaker = lane, breaker
        self.prefill, self.decode = Speed(clock), Speed(clock)
        self.running = self.low_running = 0
        self._clock, self._restarts, self._pause = clock, restarts, pause
        self._restarted = 0  # in a row
        self._died: float | None = None  # when that was noticed

    @property
    def condition(self) -> Condition:
        """Whether its engine serves, or will again."""
        if self.lane.engine.crash is None:
            return Condition.SERVES
        return Condition.RESTARTS if self._restarted < self._restarts else Condition.DOWN

    @property
    def why_down(self) -> str | None:
        """What is to be said of an engine that does not serve, None of one that does."""
        crash = self.lane.engine.crash
        if crash is None:
            return None
        after = f" after {self._restarted} restarts in a row" if self._restarted else ""
        return f"the lane {self.lane.name!r} is down{after}: {type(crash).__name__}: {crash}"

    @property
    def view(self) -> LaneView:
        """How it is now."""
        lane, condition = self.lane, self.condition
        return LaneView(
            lane.name,
            lane.tier,
            lane.quality,
            lane.capacity,
            lane.low_capacity or 0,
            self.running,
            self.low_running,
            condition is Condition.SERVES and self.breaker.allows(),
            self.prefill.value,
            self.decode.value,
            condition is Condition.DOWN,
        )

    @property
    def report(self) -> dict[str, object]:
        """The same for a reader, with what is wrong with it."""
        lane = self.lane
        return {
            "lane": lane.name,
            "tier": lane.tier,
            "quality": lane.quality,
            "condition": self.condition,
            "why": self.why_down,
            "breaker": self.breaker.state,
            "running": self.running,
            "capacity": lane.capacity,
        }

    def look_after(self) -> BaseException | None:
        """Restart a dead engine when it is time to; returns a death that is news."""
        crash = self.lane.engine.crash
        if crash is None:
            self._died = None
        elif self._died is None:
            self._died = self._clock()
            again = f"restarts in {self._pause:g} s" if self.condition is Condition.RESTARTS else "it stays so"
            log.error("%s; %s", self.why_down, again)
            return crash
        elif self.condition is Condition.RESTARTS and self._clock() - self._died >= self._pause:
            self._restarted += 1
            self._died = None  # one that does not come up has died again
            try:
                self.lane.engine.restart()
            except Exception:
                log.exception("the lane %r could not be restarted", self.lane.name)
        return None

    def begin(self, priority: str) -> int:
        """Take a place; returns the breaker's ticket."""
        self.running += 1
        self.low_running += priority == LOW
        return self.breaker.begin()

    def end(self, priority: str, ticket: int, outcome: Outcome) -> None:
        """Give the place back."""
        self.running -= 1
        self.low_running -= priority == LOW
        self.breaker.end(ticket, outcome)
        if outcome is Outcome.SUCCESS:
            self._restarted = 0
