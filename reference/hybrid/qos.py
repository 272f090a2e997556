"""Which lane takes a request: a pure function of what it asks and of how the lanes are. No clock, no thread, no torch.

A request of high or normal priority goes to a GPU lane, one of low priority to a CPU lane. It goes to the other kind
when its own is too busy, has failed, cannot meet the deadline or lies below the quality floor, and never to a lane
below its floor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from gaugeblock.reference.router.quality import reaches
from gaugeblock.reference.router.rules import BANDS
from gaugeblock.reference.router.spec import TIERS

LOW = BANDS[-1]
Reason = Literal["preferred", "quality", "fault", "deadline", "overload"]
"""Why a lane was chosen: it is of the kind that the priority prefers, or why none of that kind was."""
Refusal = Literal["quality", "fault", "deadline_passed", "deadline_unreachable"]


@dataclass(frozen=True)
class Asked:
    """What routing needs of a request.

    ``prompt`` tokens are to be computed and at most ``new`` to be generated; ``left`` seconds remain, None for no
    deadline. ``tried`` are lanes that have failed it.
    """

    priority: str = "normal"
    floor: str | None = None
    left: float | None = None
    prompt: int = 1
    new: int = 1
    tried: frozenset[str] = frozenset()

    @property
    def tiers(self) -> tuple[str, ...]:
        """The kinds of lanes, the preferred one first."""
        return TIERS[::-1] if self.priority == LOW else TIERS


@dataclass(frozen=True)
class LaneView:
    """How a lane is now.

    ``capacity`` requests run at a time, at most ``low_capacity`` of them of low priority. ``open``: its engine serves
    and its breaker lets a request in. ``prefill`` and ``decode`` are its measured seconds a prompt token and a new
    token, None if unknown. ``down``: it will never serve again.
    """

    name: str
    tier: str
    quality: str
    capacity: int
    low_capacity: int
    running: int = 0
    low_running: int = 0
    open: bool = True
    prefill: float | None = None
    decode: float | None = None
    down: bool = False

    def serves(self, asked: Asked) -> bool:
        """Whether it could ever take such a request."""
        return reaches(self.quality, asked.floor) and (asked.priority != LOW or self.low_capacity > 0)

    def has_room(self, asked: Asked) -> bool:
        """Whether one more request of this priority fits."""
        fits = asked.priority != LOW or self.low_running < self.low_capacity
        return fits and self.running < self.capacity

    def seconds(self, asked: Asked) -> float:
        """Return the seconds until the whole answer, as far as they are known."""
        return asked.prompt * (self.prefill or 0.0) + max(0, asked.new - 1) * (self.decode or 0.0)

    def in_time(self, asked: Asked) -> bool:
        """Whether the deadline can be met; what has not been measured is given the chance."""
        return asked.left is None or self.seconds(asked) <= asked.left


@dataclass(frozen=True)
class Decision:
    """A ``lane`` and why it was chosen, or a ``refusal``, or neither: wait.

    ``degraded`` is why a request that belongs to a GPU lane goes to a CPU lane, None if it does not.
    """

    lane: str | None = None
    reason: Reason | None = None
    refusal: Refusal | None = None
    degraded: Reason | None = None

    @property
    def waits(self) -> bool:
        """Whether it can be served later."""
        return self.lane is None and self.refusal is None


WAIT = Decision()


def choose(asked: Asked, lanes: Sequence[LaneView]) -> Decision:
    """Return where a request goes. Of several lanes of one kind the least loaded takes it."""
    left = untried(asked, lanes)
    timely = [lane for lane in left if lane.in_time(asked)]
    if not any(lane.serves(asked) for lane in lanes):
        return Decision(refusal="quality")
    if asked.left is not None and asked.left <= 0:
        return Decision(refusal="deadline_passed")
    if not left:
        return Decision(refusal="fault")
    if not timely:
        return Decision(refusal="deadline_unreachable")
    free = [lane for lane in timely if lane.open and lane.has_room(asked)]
    if not free:
        return WAIT
    rank = asked.tiers.index
    lane = min(free, key=lambda one: (rank(one.tier), one.running / one.capacity))
    reason = _reason(asked, lane, lanes)
    down = reason != "preferred" and TIERS.index(lane.tier) > TIERS.index(asked.tiers[0])
    return Decision(lane.name, reason, degraded=reason if down else None)


def untried(asked: Asked, lanes: Sequence[LaneView]) -> list[LaneView]:
    """Return the lanes that may still serve a request, now or later."""
    return [lane for lane in lanes if lane.serves(asked) and not (lane.name in asked.tried or lane.down)]


def _reason(asked: Asked, chosen: LaneView, lanes: Sequence[LaneView]) -> Reason:
    """Return why no lane of a kind that is preferred to the chosen one's takes the request."""
    rank = asked.tiers.index
    better = [lane for lane in lanes if rank(lane.tier) < rank(chosen.tier)]
    if not better:
        return "preferred"
    reasons = {_obstacle(asked, lane) for lane in better}
    return next(reason for reason in ("overload", "deadline", "fault", "quality") if reason in reasons)


def _obstacle(asked: Asked, lane: LaneView) -> Reason:
    if not lane.serves(asked):
        return "quality"
    if lane.name in asked.tried or not lane.open:
        return "fault"
    return "overload" if lane.in_time(asked) else "deadline"
