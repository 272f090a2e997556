"""ENG-032: the pace of a stream, by which it is judged how soon an engine must be idle."""

import json

import pytest

from gaugeblock.conformance.engine.test_eng_032_disconnect_frees_the_slot import MOST, seconds_a_token
from gaugeblock.fixtures.targets.sse import SseEvent


def stream(arrivals, each=1):
    return [
        SseEvent(json.dumps({"meta_info": {"completion_tokens": each * number}}), None, at, "")
        for number, at in enumerate(arrivals, 1)
    ]


def steady(count=MOST, step=0.002):
    return [step * number for number in range(1, count + 1)]


@pytest.mark.parametrize("pause", [0.02, 0.1, 0.12])
@pytest.mark.parametrize("at", [0, 10, 40, 64, 75])
def test_a_pause_of_the_client_makes_the_pace_neither_slow_nor_quick(pause, at):
    """The engine goes on meanwhile, and what it has made comes together."""
    arrivals = steady()
    late = [max(time, arrivals[at] + pause) if number >= at else time for number, time in enumerate(arrivals)]
    assert 0.0015 < seconds_a_token(stream(late)) < 0.0025


def test_a_pause_for_everybody_does_not_slow_the_pace():
    paused = [at + (0.2 if number > 12 else 0.0) for number, at in enumerate(steady())]
    assert seconds_a_token(stream(paused)) == pytest.approx(0.002)


@pytest.mark.parametrize("count", [2, 5, 9, 17])
def test_few_events_of_many_tokens(count):
    assert seconds_a_token(stream(steady(count, 0.064), each=32)) == pytest.approx(0.002)
