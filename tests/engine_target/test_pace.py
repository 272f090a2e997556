"""ENG-032: the pace of a stream, by which it is judged how soon an engine must be idle."""

import json

import pytest

from gaugeblock.conformance.engine.test_eng_032_disconnect_frees_the_slot import BEFORE, seconds_a_token
from gaugeblock.fixtures.targets.sse import SseEvent


def stream(arrivals, each=1):
    return [
        SseEvent(json.dumps({"meta_info": {"completion_tokens": each * number}}), None, at, "")
        for number, at in enumerate(arrivals, 1)
    ]


def steady(count=BEFORE, step=0.002):
    return [step * number for number in range(1, count + 1)]


@pytest.mark.parametrize("held", [1, 8, 16])
def test_a_hiccup_does_not_slow_the_pace(held):
    """Some events come late and together: over all of them the pace would be several times too slow."""
    arrivals = steady()
    for at in range(10, 10 + held):
        arrivals[at] = arrivals[9 + held] + 0.1
    late = [max(arrivals[: number + 1]) for number in range(BEFORE)]
    assert seconds_a_token(stream(late)) <= 0.0021
    assert seconds_a_token(stream(steady())) == pytest.approx(0.002)


def test_a_pause_for_everybody_does_not_slow_the_pace():
    paused = [at + (0.2 if number > 12 else 0.0) for number, at in enumerate(steady())]
    assert seconds_a_token(stream(paused)) == pytest.approx(0.002)


@pytest.mark.parametrize("count", [2, 5, 9, 17])
def test_few_events_of_many_tokens(count):
    assert seconds_a_token(stream(steady(count, 0.064), each=32)) == pytest.approx(0.002)
