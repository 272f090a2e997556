from __future__ import annotations

import pytest

from gaugeblock.reference.router.breaker import Breaker, Outcome, State


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(failures=3, cooldown=10.0, probes=2, successes=2, clock=clock)


def play(breaker: Breaker, *outcomes: Outcome) -> None:
    for outcome in outcomes:
        breaker.end(breaker.begin(), outcome)


def opened(breaker: Breaker, clock: Clock) -> Breaker:
    play(breaker, *[Outcome.FAULT] * 3)
    clock.now += 10.0
    return breaker


def test_faults_in_a_row_open_it(breaker: Breaker) -> None:
    play(breaker, Outcome.FAULT, Outcome.FAULT)
    assert breaker.allows()
    play(breaker, Outcome.FAULT)
    assert (breaker.state, breaker.allows(), breaker.retry_after()) == (State.OPEN, False, 10.0)


def test_a_success_ends_the_row(breaker: Breaker) -> None:
    play(breaker, Outcome.FAULT, Outcome.FAULT, Outcome.SUCCESS, Outcome.FAULT, Outcome.FAULT)
    assert breaker.state is State.CLOSED


def test_neutral_ends_say_nothing(breaker: Breaker) -> None:
    play(breaker, *[Outcome.NEUTRAL] * 50)
    assert breaker.state is State.CLOSED
    play(breaker, Outcome.FAULT, Outcome.FAULT, Outcome.NEUTRAL, Outcome.FAULT)
    assert breaker.state is State.OPEN


def test_half_open_lets_a_bounded_number_of_probes_through(breaker: Breaker, clock: Clock) -> None:
    opened(breaker, clock)
    assert breaker.state is State.HALF_OPEN
    tickets = [breaker.begin(), breaker.begin()]
    assert not breaker.allows()
    breaker.end(tickets[0], Outcome.NEUTRAL)
    assert (breaker.allows(), breaker.state) == (True, State.HALF_OPEN)


def test_good_probes_close_it_and_a_fault_opens_it_again(breaker: Breaker, clock: Clock) -> None:
    play(opened(breaker, clock), Outcome.SUCCESS)
    assert breaker.state is State.HALF_OPEN
    play(breaker, Outcome.SUCCESS)
    assert breaker.state is State.CLOSED
    play(opened(breaker, clock), Outcome.SUCCESS, Outcome.FAULT)
    assert (breaker.state, breaker.retry_after()) == (State.OPEN, 10.0)


def test_an_attempt_of_an_earlier_state_is_not_scored_into_this_one(breaker: Breaker, clock: Clock) -> None:
    late = [breaker.begin() for _ in range(4)]
    opened(breaker, clock)
    assert breaker.allows()
    for ticket in late:
        breaker.end(ticket, Outcome.FAULT)
    assert breaker.state is State.HALF_OPEN
    tickets = [breaker.begin(), breaker.begin()]
    assert not breaker.allows()
    breaker.end(tickets[0], Outcome.FAULT)
    clock.now += 10.0
    breaker.end(tickets[1], Outcome.NEUTRAL)
    assert breaker.allows()
