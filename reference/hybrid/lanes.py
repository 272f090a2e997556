"""A lane: an engine, what it runs on, how good it is and how much it takes; and how it does at the moment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from gaugeblock.reference.engine.types import EventSink, GenerateRequest
from gaugeblock.reference.hybrid.qos import LOW, LaneView
from gaugeblock.reference.router.breaker import Breaker, Outcome
from gaugeblock.reference.router.quality import QUALITIES
from gaugeblock.reference.router.spec import TIERS
from gaugeblock.reference.router.tables import check_choice, check_name, check_whole

MEMORY = 30.0  # seconds that a measured speed counts: after one bad minute a lane gets the chance to be measured again
SMOOTHING = 0.2  # of the newest measurement in the mean of the last ones


class LaneEngine(Protocol):
    """What generates: :class:`gaugeblock.reference.engine.engine.Engine`, or anything with its two calls.

    Events may come on any thread; each request gets exactly one that carries ``finish``.
    """

    def submit(self, request: GenerateRequest, sink: EventSink) -> None:
        """Begin; raises ``RequestError`` for what it will never serve."""

    def abort(self, rid: str | None) -> Any:
        """End a request; unknown ids are ignored."""


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
    """What a front keeps of a lane."""

    def __init__(self, lane: Lane, breaker: Breaker, clock: Callable[[], float]) -> None:
        self.lane, self.breaker = lane, breaker
        self.prefill, self.decode = Speed(clock), Speed(clock)
        self.running = self.low_running = 0

    @property
    def view(self) -> LaneView:
        """How it is now."""
        lane = self.lane
        return LaneView(
            lane.name,
            lane.tier,
            lane.quality,
            lane.capacity,
            lane.low_capacity or 0,
            self.running,
            self.low_running,
            self.breaker.allows(),
            self.prefill.value,
            self.decode.value,
        )

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
