"""The sequential test: its bounds against known values, its two forms against each other, its power."""

import numpy as np
import pytest

from gaugeblock.fixtures.errors import KitError
from gaugeblock.fixtures.similarity.sequential import Limit, Watch, limits_of, lower_rate, positions_needed, upper_rate

LIMITS = (Limit(0.8, 0.002), Limit(0.9, 0.01))


def test_clopper_pearson_against_known_values():
    assert upper_rate(0, 200, 0.95) == pytest.approx(1 - 0.05 ** (1 / 200), abs=1e-8)
    assert upper_rate(3, 100, 0.975) == pytest.approx(0.0852, abs=1e-4)
    assert lower_rate(3, 100, 0.975) == pytest.approx(0.0062, abs=1e-4)
    assert upper_rate(5, 5) == 1.0
    assert lower_rate(0, 5) == pytest.approx(0.0, abs=1e-8)


def test_a_watch_and_the_whole_series_say_the_same():
    rng = np.random.default_rng(0)
    for rate in (0.0, 0.02, 0.2):
        values = np.where(rng.random(800) < rate, 0.5, 0.99)
        values[3] = np.nan
        watch = Watch(LIMITS)
        stopped = next((watch.positions for value in values if watch.see(float(value))), None)
        assert stopped == positions_needed(values, LIMITS)
        assert watch.alarm == (stopped is not None)
        assert (watch.capital >= 1000) == watch.alarm


def test_a_coarse_fault_is_told_at_once_and_a_right_engine_never():
    assert positions_needed(np.zeros(50), LIMITS) <= 5
    assert positions_needed(np.full(20_000, 0.95), LIMITS) is None


def test_limits_come_from_the_worst_variant():
    rng = np.random.default_rng(1)
    fine, coarse = 1 - rng.random(1000) * 0.01, 1 - rng.random(1000) * 0.1
    low, bulk, deep, deepest = limits_of([[fine], [coarse]])
    assert deepest.below < deep.below < coarse.min() <= low.below < bulk.below
    assert deepest.rate < deep.rate < low.rate < bulk.rate
    assert bulk.rate == upper_rate(int((coarse < bulk.below).sum()), 1000)
    assert deep.rate == pytest.approx(bulk.rate * np.exp(-4))
    with pytest.raises(KitError, match="at least 100 positions"):
        limits_of([[fine[:99]]])
