"""HYB-061."""

from __future__ import annotations

from collections.abc import Callable

from gaugeblock.conformance.check import check

BEGINS = 60  # rounds until the fault is planted
SIZE = 2  # positions a round
SHARE = 0.15  # of the positions are low from then on, no lower than a right engine's lowest
SOON = 250  # rounds
WATCHES = 12


@check(
    "HYB-061",
    feature="watch",
    bound="a fault that puts 15% of the positions as low as a right engine has 2% of them is confirmed within 250 "
    "rounds of 2 positions by each of 12 watches (slowest measured 105), and never before it is planted",
    sources=("https://github.com/vllm-project/vllm/issues/45704", "https://arxiv.org/abs/2010.09686"),
)
def test_hyb_061(record_property: Callable[[str, object], None]) -> None:
    """A fault that begins while an endpoint is watched is confirmed, from what many rounds say together

    No round shows more than a few positions as low as a right engine has them, too. Look at what is carried from one
    round to the next.
    """
    import numpy as np

    from gaugeblock.conformance.hybrid.watched import POSITIONS, PROMPTS, limits, measured, right_engine, watcher
    from gaugeblock.conformance.hybrid.watched import rounds_to_alarm as until
    from gaugeblock.fixtures.watch.reading import Draw, Reading

    taken = []
    value = sorted(limit.below for limit in limits())[-1] - 1e-6  # the highest limit
    for seed in range(WATCHES):
        right = right_engine(100 + seed)
        low = np.random.default_rng(seed).random((PROMPTS, POSITIONS)) < SHARE
        endpoints = [measured(right), measured(np.where(low, value, right))]

        def measure(draw: Draw, endpoints: list[Callable[[Draw], Reading]] = endpoints) -> Reading:
            return endpoints[0](draw)

        watch = watcher(measure, seed, SIZE)
        early = until(watch, BEGINS)
        assert early is None, f"watch {seed}: an alarm in round {early}, and the fault begins after round {BEGINS}"
        endpoints.pop(0)
        alarm = until(watch, SOON)
        assert alarm is not None, (
            f"watch {seed}: {SHARE:.0%} of the positions are low, and {SOON} rounds of {SIZE} positions confirm nothing"
        )
        taken.append(alarm - BEGINS)
    assert min(taken) > 1, "one round confirms it: the fault is too coarse to show what is carried over"
    record_property("evidence", f"confirmed after {sorted(taken)[10]} rounds in the median, {max(taken)} at most")
