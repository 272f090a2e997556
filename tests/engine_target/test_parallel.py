import threading

import pytest

from gaugeblock.fixtures.targets.parallel import parallel


def test_calls_run_at_the_same_moment_and_keep_their_order():
    meeting = threading.Barrier(3)

    def call(number):
        meeting.wait(5)  # breaks unless all three are under way
        return number

    assert parallel([lambda i=i: call(i) for i in range(3)]) == [0, 1, 2]


def test_the_first_error_in_order_is_raised():
    def fail(word):
        raise ValueError(word)

    with pytest.raises(ValueError, match="first"):
        parallel([lambda: fail("first"), lambda: fail("second")])


def test_nothing_to_do():
    assert parallel([]) == []
