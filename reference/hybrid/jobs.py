"""What the QoS front keeps of a request, and what an operator decides of the front."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from gaugeblock.reference.engine.types import EventSink, GenerateRequest, RequestError, TokenEvent
from gaugeblock.reference.hybrid.lanes import Condition, LaneState
from gaugeblock.reference.hybrid.qos import Asked, Reason, untried
from gaugeblock.reference.router.quality import QUALITIES
from gaugeblock.reference.router.rules import BANDS
from gaugeblock.reference.router.tables import check_number, check_whole

REFUSALS = {
    "quality": (400, "no lane takes such a request"),
    "fault": (503, "no lane is left that could serve the request"),
    "queue_full": (429, "too many requests wait already"),
    "queue_timeout": (429, "no lane had room for the request in time"),
    "deadline_unreachable": (429, "no lane is fast enough for the request's time-out"),
    "deadline_passed": (504, "the request's time was over before a lane could take it"),
}
"""HTTP status and message of each way in which no lane serves a request."""


@dataclass(frozen=True, kw_only=True)
class FrontConfig:
    """Times in seconds.

    At most ``queue_size`` requests wait, each for ``queue_timeout``; one that was passed over ``patience`` times goes
    first. A lane that is silent for ``idle_timeout`` within a request has failed it. The breaker is that of the router.
    A lane whose engine has died is restarted after ``restart_pause``, ``restarts`` times without an answer in between.

    Raises:
        ValueError: naming the field, the value and what is legal.
    """

    queue_size: int = 256
    queue_timeout: float = 60.0
    patience: int = 16
    idle_timeout: float = 60.0
    breaker_failures: int = 3
    breaker_cooldown: float = 10.0
    breaker_probes: int = 1
    breaker_successes: int = 1
    restarts: int = 3
    restart_pause: float = 5.0

    def __post_init__(self) -> None:
        for name in ("queue_timeout", "idle_timeout"):
            check_number(name, getattr(self, name), 0, above=True)
        for name in ("breaker_cooldown", "restart_pause"):
            check_number(name, getattr(self, name), 0)
        for name in ("queue_size", "restarts"):
            check_whole(name, getattr(self, name), 0)
        for name in ("patience", "breaker_failures", "breaker_probes", "breaker_successes"):
            check_whole(name, getattr(self, name), 1)


@dataclass(frozen=True)
class Qos:
    """What a request asks for: its ``priority``, the lowest quality that will do, and seconds for the whole answer."""

    priority: str = "normal"
    floor: str | None = None
    timeout: float | None = None

    def check(self) -> None:
        """Raise ``RequestError`` naming the field, the value and what is legal."""
        if self.priority not in BANDS:
            raise RequestError(f"the priority (x-priority) must be one of {', '.join(BANDS)}; got {self.priority!r}")
        if self.floor is not None and self.floor not in QUALITIES:
            legal = ", ".join(QUALITIES)
            raise RequestError(f"the quality floor (x-quality-floor) must be one of {legal}; got {self.floor!r}")
        if self.timeout is not None and not (math.isfinite(self.timeout) and self.timeout > 0):
            raise RequestError(f"the time-out (x-request-timeout) must be seconds > 0; got {self.timeout!r}")


@dataclass(eq=False, slots=True)
class Attempt:
    """A request in a lane, under an id of its own. ``heard`` is when the lane last said something."""

    state: LaneState
    rid: str
    ticket: int
    began: float
    heard: float
    tokens: int = 0

    def measure(self, now: float, prompt: int, cached: int) -> None:
        """Take the time of a token that has come. The first one tells how long the prompt took."""
        if self.tokens == 0:
            self.state.prefill.note((now - self.began) / max(1, prompt - cached))
        else:
            self.state.decode.note(now - self.heard)
        self.tokens += 1


@dataclass(eq=False, slots=True)
class Job:
    """One request from its arrival to its end. ``until`` is its deadline, ``lapse`` when it has waited too long.

    ``tried`` says of each lane that failed how it did. ``tokens`` are those of the answer that the client has,
    ``lanes`` the lanes that made them, in order. ``passed`` counts how often a later one went first.
    """

    request: GenerateRequest
    sink: EventSink
    qos: Qos
    number: int
    since: float
    until: float
    lapse: float
    attempt: Attempt | None = None
    last: Attempt | None = None
    tried: dict[str, str] = field(default_factory=dict)
    tokens: list[int] = field(default_factory=list)
    lanes: dict[str, None] = field(default_factory=dict)
    degraded: Reason | None = None
    passed: int = 0
    called_off: bool = False
    over: bool = False

    @property
    def band(self) -> int:
        """Its priority as a number, 0 the most urgent."""
        return BANDS.index(self.qos.priority)

    @property
    def kind(self) -> tuple[str, str | None, frozenset[str]]:
        """What decides about a request without a deadline: of two of a kind, one waits if the other does."""
        return self.qos.priority, self.qos.floor, frozenset(self.tried)

    def asked(self, now: float) -> Asked:
        """Return what routing needs to know at a time."""
        done = len(self.request.output_ids) + len(self.tokens)
        return Asked(
            self.qos.priority,
            self.qos.floor,
            None if self.until == math.inf else self.until - now,
            len(self.request.input_ids) + done,
            self.request.sampling.max_new_tokens - done,
            frozenset(self.tried),
        )

    def for_lane(self, rid: str) -> GenerateRequest:
        """Return the request as a lane gets it: with the answer so far, of whose prompt nothing more is asked."""
        output = (*self.request.output_ids, *self.tokens)
        start = -1 if self.tokens else self.request.logprob_start_len
        return replace(self.request, rid=rid, output_ids=output, logprob_start_len=start)

    def told(self, attempt: Attempt | None, event: TokenEvent) -> TokenEvent:
        """Return a lane's event as the client gets it: under its own id, with the lane, and the prompt told once."""
        if self.tokens:
            event = replace(event, prompt_tokens=0, cached_tokens=0, input_token_logprobs=None, input_top_logprobs=None)
        served: dict[str, object] = {}
        if attempt is not None:
            lane = attempt.state.lane
            served = {"lane": lane.name, "lane_quality": lane.quality, "degraded": self.degraded}
            names = list(dict.fromkeys((*self.lanes, lane.name)))
            if len(names) > 1 and self.tokens:
                served["lanes"] = names
        return replace(event, rid=self.request.rid, served_by=served or None)


def refusal_text(kind: str, job: Job, states: Sequence[LaneState], now: float) -> tuple[int, str]:
    """Return the status and the message of a refusal."""
    status, text = REFUSALS[kind]
    floor = job.qos.floor
    if kind == "deadline_unreachable":
        asked = job.asked(now)
        least = min(view.seconds(asked) for view in untried(asked, [state.view for state in states]))
        text = f"{text}: {asked.new} new tokens take about {least:.3g} s, and {asked.left:.3g} s are left"
    if kind == "quality" and floor is not None:
        have = ", ".join(f"{state.lane.name} ({state.lane.quality})" for state in states)
        text = f"{text}: it asks for {floor} or better, and the lanes are {have}"
    said = list(job.tried.values())
    if kind == "fault":
        others = [state for state in states if state.lane.name not in job.tried]
        said += filter(None, [state.why_down for state in others if state.condition is Condition.DOWN])
        if floor is not None:
            text = f"no other lane reaches {floor}, which the request asks for"
    return 503 if said else status, "; ".join([*said, text])
