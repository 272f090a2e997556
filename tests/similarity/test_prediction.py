"""Limits for one more rounding: Student's t against tables, and how often a right engine misses the limit."""

import numpy as np
import pytest

from gaugeblock.fixtures.similarity.calibration import first_percentile, first_percentiles
from gaugeblock.fixtures.similarity.prediction import between, lower_limit, students_t
from gaugeblock.fixtures.similarity.sequential import limits_of, upper_rate
from gaugeblock.fixtures.similarity.summary import lowest_mean, lowest_means

PROMPTS, POSITIONS, ROUNDINGS = 24, 90, 8


def rounding(rng, luck):
    """One rounding of a model: the positions share its luck."""
    scale = 0.01 * np.exp(rng.normal(0, luck))
    return list(1 - scale * rng.gamma(2.0, 1.0, (PROMPTS, POSITIONS)))


@pytest.mark.parametrize(
    ("missed", "freedom", "value"),
    [
        (0.001, 1, 318.309), (0.001, 2, 22.327), (0.001, 3, 10.215), (0.001, 4, 7.173), (0.001, 7, 4.785),
        (0.01, 7, 2.998), (0.01, 10, 2.764), (0.025, 5, 2.571), (0.05, 30, 1.697),
    ],
)  # fmt: skip
def test_students_t_against_the_tables(missed, freedom, value):
    assert students_t(missed, freedom) == pytest.approx(value, abs=6e-4)


def test_what_lies_between_draws():
    assert between([0.3], 0.001) == 0.0
    assert between([1.0, 2.0, 3.0], 0.001) == pytest.approx(22.327 * 1.0 * np.sqrt(4 / 3), rel=1e-4)


@pytest.mark.parametrize(("statistic", "of_many"), [(first_percentile, first_percentiles), (lowest_mean, lowest_means)])
def test_right_engines_miss_a_limit_of_several_roundings_seldom_and_of_one_often(statistic, of_many):
    rng = np.random.default_rng(0)
    missed = {1: 0, ROUNDINGS: 0}
    for _ in range(25):
        null = [rounding(rng, 0.15) for _ in range(ROUNDINGS)]
        engines = [statistic(np.concatenate(rounding(rng, 0.15))) for _ in range(40)]
        for count in missed:
            limit = lower_limit(null[:count], of_many)
            missed[count] += sum(engine <= limit for engine in engines)
    assert missed[ROUNDINGS] <= 5, "of 1,000, where 1 is expected"
    assert missed[1] >= 50, "nothing differs between these roundings: the test shows nothing"


def test_where_roundings_do_not_differ_prompts_decide():
    rng = np.random.default_rng(1)
    once = rounding(rng, 0.0)
    alone, often = lower_limit([once], lowest_means), lower_limit([once] * 5, lowest_means)
    seen = lowest_mean(np.concatenate(once))
    assert alone == pytest.approx(often)
    assert seen - 0.05 < alone < seen


def test_statistics_of_several_sets_are_those_of_each_from_its_lowest_values():
    rng = np.random.default_rng(2)
    sets = [rng.random(size) for size in (2250, 1, 100, 101, 640)]
    lowest = np.array([np.sort(np.append(values, np.full(40, np.inf)))[:40] for values in sets])
    sizes = np.array([len(values) for values in sets])
    by_rank = [np.sort(values)[(len(values) - 1) // 100] for values in sets]
    by_mean = [np.sort(values)[: -(-len(values) // 100)].mean() for values in sets]
    assert first_percentiles(lowest, sizes).tolist() == by_rank == [first_percentile(values) for values in sets]
    assert lowest_means(lowest, sizes) == pytest.approx(by_mean, rel=1e-12)
    assert [lowest_mean(values) for values in sets] == pytest.approx(by_mean, rel=1e-12)


def test_rates_of_a_sequential_test_allow_for_another_rounding():
    rng = np.random.default_rng(3)
    above: dict[str, list[bool]] = {"limit": [], "pooled": []}
    for _ in range(20):
        null = [np.concatenate(rounding(rng, 0.1)) for _ in range(ROUNDINGS)]
        engines = [np.concatenate(rounding(rng, 0.1)) for _ in range(20)]
        for limit in limits_of([null])[:2]:
            hits = sum(int((row < limit.below).sum()) for row in null)
            pooled = upper_rate(hits, ROUNDINGS * len(null[0]))
            rates = [float((engine < limit.below).mean()) for engine in engines]
            above["limit"] += [rate > limit.rate for rate in rates]
            above["pooled"] += [rate > pooled for rate in rates]
    assert np.mean(above["limit"]) <= 0.03, "one-sided 99%"
    assert np.mean(above["pooled"]) > 0.2, "a bound on the mean is none on the next"
