"""Where a request goes: a pure function of what it asks and of how the lanes are."""

import itertools
from dataclasses import replace

import pytest

from gaugeblock.reference.hybrid.qos import Asked, LaneView, choose

GPU = LaneView("gpu", "gpu", "fp32", capacity=4, low_capacity=1)
CPU = LaneView("cpu", "cpu", "int8", capacity=4, low_capacity=4)
FULL = {"running": 4}


@pytest.mark.parametrize(
    ("asked", "gpu", "cpu", "lane", "reason", "degraded"),
    [
        (Asked("high"), {}, {}, "gpu", "preferred", None),
        (Asked("normal"), {}, {}, "gpu", "preferred", None),
        (Asked("low"), {}, {}, "cpu", "preferred", None),
        (Asked("high"), FULL, {}, "cpu", "overload", "overload"),
        (Asked("high"), {"open": False}, {}, "cpu", "fault", "fault"),
        (Asked("high", tried=frozenset({"gpu"})), {}, {}, "cpu", "fault", "fault"),
        (Asked("high", left=1.0, new=11), {"decode": 0.2}, {"decode": 0.05}, "cpu", "deadline", "deadline"),
        (Asked("low"), {}, FULL, "gpu", "overload", None),
        (Asked("low", floor="bf16"), {}, {}, "gpu", "quality", None),
        (Asked("low", left=1.0, prompt=100), {"prefill": 0.001}, {"prefill": 0.1}, "gpu", "deadline", None),
        (Asked("low"), {"running": 1, "low_running": 1}, FULL, None, None, None),
        (Asked("high", floor="fp32"), FULL, {}, None, None, None),
        (Asked("high"), FULL, FULL, None, None, None),
        (Asked("high"), FULL, {"open": False}, None, None, None),
    ],
)
def test_choice(asked, gpu, cpu, lane, reason, degraded):
    decision = choose(asked, [replace(GPU, **gpu), replace(CPU, **cpu)])
    assert (decision.lane, decision.reason, decision.degraded) == (lane, reason, degraded)
    assert decision.waits == (lane is None)


@pytest.mark.parametrize(
    ("asked", "lanes", "refusal"),
    [
        (Asked(floor="fp16"), [CPU], "quality"),
        (Asked("low"), [replace(GPU, low_capacity=0)], "quality"),
        (Asked(tried=frozenset({"gpu", "cpu"})), [GPU, CPU], "fault"),
        (Asked(floor="fp32", tried=frozenset({"gpu"})), [GPU, CPU], "fault"),
        (Asked(left=0.0), [GPU, CPU], "deadline_passed"),
        (Asked(left=1.0, new=100), [replace(GPU, decode=0.1), replace(CPU, decode=0.1)], "deadline_unreachable"),
    ],
)
def test_refusal(asked, lanes, refusal):
    decision = choose(asked, lanes)
    assert decision.refusal == refusal
    assert not decision.waits


def test_the_least_loaded_of_a_kind():
    lanes = [replace(GPU, name="one", running=2), replace(GPU, name="two", running=1), CPU]
    assert choose(Asked(), lanes).lane == "two"


def test_no_choice_breaks_a_promise():
    """All states of two lanes by all requests: floor, room, breaker and deadline hold, nothing is refused in vain."""
    states = [
        {"running": running, "open": is_open, "decode": decode}
        for running, is_open, decode in itertools.product((0, 4), (True, False), (None, 0.01, 1.0))
    ]
    asks = [
        Asked(priority, floor, left, new=11, tried=frozenset(tried))
        for priority, floor, left, tried in itertools.product(
            ("high", "low"), (None, "int8", "fp32"), (None, 5.0), ((), ("gpu",), ("cpu",))
        )
    ]
    for gpu, cpu, asked in itertools.product(states, states, asks):
        lanes = [replace(GPU, **gpu), replace(CPU, **cpu)]
        decision = choose(asked, lanes)
        fit = [v for v in lanes if v.serves(asked) and v.name not in asked.tried and v.in_time(asked)]
        free = [v for v in fit if v.open and v.has_room(asked)]
        if decision.lane is not None:
            assert decision.lane in {v.name for v in free}
        else:
            assert not free
            assert decision.waits == bool(fit)
