"""LOAD-003 on made-up arrivals: what is a burst, and what a busy machine."""

import pytest

from gaugeblock.conformance.load import test_load_003_incremental as check
from gaugeblock.conformance.load.streams import Stream

SPREAD = tuple(0.01 * n for n in range(1, check.TOKENS + 1))
BURST = (SPREAD[-1],) * check.TOKENS


def run(monkeypatch, crowds):
    """Run the check where each crowd has one stream with the arrivals given; return how many crowds were asked."""
    left = iter(crowds)
    asked = []

    def crowd(*_):
        asked.append(next(left))
        return [Stream(arrivals, check.TOKENS, 15, "length", "") for arrivals in (SPREAD, asked[-1])]

    monkeypatch.setattr(check, "stream_one", lambda *_: Stream(SPREAD, check.TOKENS, 15, "length", ""))
    monkeypatch.setattr(check, "stream_many", crowd)
    check.test_load_003(engine=None, note=lambda text: None)
    return len(asked)


def test_one_crowd_is_enough_where_nothing_is_held_back(monkeypatch):
    assert run(monkeypatch, [SPREAD]) == 1


def test_a_burst_that_does_not_come_again_is_no_failure(monkeypatch):
    assert run(monkeypatch, [BURST, SPREAD, SPREAD]) == 3


@pytest.mark.parametrize("further", [(BURST, SPREAD), (SPREAD, BURST), (BURST, BURST)])
def test_a_burst_that_comes_again_is_one(monkeypatch, further):
    with pytest.raises(AssertionError, match=r"1 of 16 streams .* in a burst, and again in a further crowd"):
        run(monkeypatch, [BURST, *further])
