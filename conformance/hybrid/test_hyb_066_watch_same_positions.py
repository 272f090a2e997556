"""HYB-066."""

from __future__ import annotations

from collections.abc import Callable

from gaugeblock.conformance.check import check

ROUNDS = 600
WATCHES = 2


@check(
    "HYB-066",
    feature="watch",
    bound="a right engine with one position of 2,160 below all limits is not alarmed in 600 rounds of 48; with the "
    "rates of a stream of new positions, of which one in 39,000 passes the deepest limit, all three are within 263",
    sources=("https://arxiv.org/abs/2010.09686",),
)
def test_hyb_066(record_property: Callable[[str, object], None]) -> None:
    """One odd position that comes back for ever is no regression

    A watch has some thousand positions and draws from them for weeks. Of so many a right engine may have one that is
    odder than any of the null, and meets it again and again. Look at the rates that a limit is bet on with.
    """
    from gaugeblock.conformance.hybrid.watched import LENGTHS, measured, right_engine, rounds_to_alarm, watcher

    for seed in range(WATCHES):
        overlaps = right_engine(0)
        overlaps[seed, 7] = 0.0
        watch = watcher(measured(overlaps), seed)
        alarm = rounds_to_alarm(watch, ROUNDS)
        assert alarm is None, (
            f"one odd position of {sum(LENGTHS)} is an alarm after {alarm} rounds, {watch.certain.positions} positions"
        )
        assert watch.worst is not None
        assert watch.worst.high == 0.0, "the odd position was never drawn: nothing was shown"
    record_property("evidence", f"{WATCHES} watches of {ROUNDS} rounds")
