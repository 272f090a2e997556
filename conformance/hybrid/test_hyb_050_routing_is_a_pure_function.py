"""HYB-050."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.reference.hybrid.qos import Asked, LaneView


@check(
    "HYB-050",
    feature="lanes",
    bound="exact: each of 10,368 pairs of a request and a state of two lanes has one answer, and the same one twice",
)
def test_hyb_050(record_property: Callable[[str, object], None]) -> None:
    """Where a request goes is a function of what it asks and of how the lanes are, and of nothing else

    Priority, quality floor, deadline, lanes that have failed it; room, breaker and speed of each lane. Look at state
    that the choice keeps for itself, and at priorities that are neither high nor low.
    """
    from gaugeblock.reference.hybrid import qos

    cases = list(_cases())
    first = [qos.choose(asked, lanes) for asked, lanes in cases]
    again = [qos.choose(asked, lanes) for asked, lanes in reversed(cases)][::-1]
    answers = {"lane": 0, "refusal": 0, "wait": 0}
    for (asked, lanes), decision, second in zip(cases, first, again, strict=True):
        said = decision.lane or decision.refusal or "wait"
        assert decision == second, f"{asked} with {lanes}: {said}, and {second.lane or second.refusal or 'wait'} again"
        right = _belongs(asked, *lanes)
        assert said == right, f"{asked} with {lanes} belongs to {right}, and went to {said}"
        answers["lane" if decision.lane else "refusal" if decision.refusal else "wait"] += 1
    assert min(answers.values()) > 100, f"of {len(cases)} cases only {answers}: not every answer was asked for"
    record_property("evidence", f"{len(cases)} cases: {answers}")


def _cases() -> Iterator[tuple[Asked, tuple[LaneView, LaneView]]]:
    """Pairs of a request, and a GPU lane in fp32 and a CPU lane in INT8 in some state."""
    from gaugeblock.reference.hybrid.qos import Asked, LaneView

    gpu = LaneView("gpu", "gpu", "fp32", capacity=4, low_capacity=1)
    cpu = LaneView("cpu", "cpu", "int8", capacity=4, low_capacity=4)
    speeds = {"slow": 1.0, "fast": 0.01, "unknown": None}
    states: list[dict[str, Any]] = [
        {"running": running, "low_running": 1 if running > 1 else 0, "open": is_open, "decode": decode}
        for running, is_open, decode in itertools.product((0, 2, 4), (True, False), speeds.values())
        if is_open or running == 0
    ]
    asks = [
        Asked(priority, floor, left, new=11, tried=frozenset(tried))
        for priority, floor, left, tried in itertools.product(
            ("high", "normal", "low"), (None, "bf16", "int4"), (None, 5.0), ((), ("gpu",), ("cpu",), ("gpu", "cpu"))
        )
    ]
    for asked, one, other in itertools.product(asks, states, states):
        yield asked, (replace(gpu, **one), replace(cpu, **other))


def _belongs(asked: Asked, gpu: LaneView, cpu: LaneView) -> str:
    """Return the lane, the refusal or ``wait``, put down case by case."""
    order = [cpu, gpu] if asked.priority == "low" else [gpu, cpu]
    fit = [lane for lane in order if not (asked.floor == "bf16" and lane is cpu)]
    fit = [lane for lane in fit if lane.name not in asked.tried]
    if not fit:
        return "fault"
    fit = [lane for lane in fit if asked.left is None or (lane.decode or 0) * 10 <= asked.left]
    if not fit:
        return "deadline_unreachable"
    for lane in fit:
        full = lane.running == 4 or (lane is gpu and asked.priority == "low" and lane.low_running == 1)
        if lane.open and not full:
            return lane.name
    return "wait"
