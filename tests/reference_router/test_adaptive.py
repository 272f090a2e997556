"""The adaptive limit under an injected clock."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaugeblock.reference.router.adaptive import AdaptiveLimit, Aim

AIM = Aim(target=0.5, window=1.0, backoff=0.5, floor=2, ceiling=12, start=8)


class Drive:
    """A worker that always has as many requests as it may, played a window at a time."""

    def __init__(self, aim: Aim = AIM) -> None:
        self.now = 0.0
        self.limit = AdaptiveLimit(aim, self.now)

    def window(self, *latencies: float, reached: bool = True) -> int:
        """One window in which requests with these latencies begin at its start; returns the limit after it."""
        self.limit.sent(self.limit.value if reached else self.limit.value - 1)
        began = self.now
        self.now += 1.0
        for latency in latencies or (0.1,) * 12:
            self.limit.note(began, latency, self.now)
        return self.limit.value


def test_it_shrinks_by_the_factor_and_grows_by_one() -> None:
    drive = Drive()
    assert [drive.window(*[0.9] * 10) for _ in range(3)] == [4, 2, 2]
    assert [drive.window() for _ in range(12)] == [3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 12, 12]


def test_a_slow_tenth_is_what_counts() -> None:
    drive = Drive()
    assert drive.window(*[0.1] * 9, 9.0) == 9
    assert drive.window(*[0.1] * 8, 9.0, 9.0) == 4


def test_at_most_one_decrease_a_window() -> None:
    drive = Drive()
    assert drive.window(*[0.9] * 10) == 4
    for _ in range(100):  # all sent after the decrease, none a window later
        drive.limit.note(drive.now, 0.9, drive.now + 0.5)
    assert drive.limit.value == 4
    drive.limit.note(drive.now, 0.9, drive.now + 1.0)
    assert drive.limit.value == 2


def test_what_was_sent_before_a_decrease_does_not_decrease_again() -> None:
    drive = Drive()
    drive.window(*[0.9] * 10)
    for number in range(40):
        drive.limit.note(0.5, 5.0, drive.now + number)
    assert drive.limit.value == 4


def test_a_window_needs_a_round_of_answers() -> None:
    drive = Drive()
    assert drive.window(*[0.9] * 7) == 8
    drive.limit.note(drive.now, 0.9, drive.now)
    assert drive.limit.value == 4


def test_what_was_never_reached_does_not_grow() -> None:
    drive = Drive()
    assert [drive.window(reached=False) for _ in range(5)] == [8] * 5


def test_no_room_at_the_worker_counts_as_slow() -> None:
    assert Drive().window(*[math.inf] * 10) == 4


@pytest.mark.parametrize(("start", "value"), [(1, 2), (8, 8), (99, 12)])
def test_it_starts_within_its_bounds(start: int, value: int) -> None:
    assert AdaptiveLimit(Aim(0.5, floor=2, ceiling=12, start=start), 0.0).value == value


@given(st.lists(st.tuples(st.floats(0, 3), st.floats(0, 2)), max_size=200))
def test_it_never_leaves_its_bounds(answers: list[tuple[float, float]]) -> None:
    limit, now = AdaptiveLimit(AIM, 0.0), 0.0
    for latency, gap in answers:
        limit.sent(limit.value)
        before, now = limit.value, now + gap
        limit.note(now, latency, now)
        assert 2 <= limit.value <= 12
        assert limit.value <= before + 1
