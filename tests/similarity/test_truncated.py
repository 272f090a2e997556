"""Bounds from top candidates: hand-made distributions, random ones against every completion tried, and misuse."""

import math

import numpy as np
import pytest

from gaugeblock.conformance.similarity import Known, compare, kl_bound, known_rows, overlap_bounds, summarise, truncated
from gaugeblock.fixtures.errors import KitError, TargetFault


def known(probabilities, top=None, vocab=None):
    return Known({t: math.log(p) for t, p in probabilities.items()}, top or len(probabilities), vocab)


def test_the_same_list_leaves_its_rest_open():
    p = known({1: 0.6, 2: 0.3})
    assert overlap_bounds(p, p) == pytest.approx((0.9, 1.0))
    assert kl_bound(p, p) == 0.0


def test_lists_without_a_common_token():
    p, q = known({1: 0.6, 2: 0.3}), known({3: 0.6, 4: 0.3})
    low, high = overlap_bounds(p, q)
    assert low == 0.0
    assert high == pytest.approx(0.2), "tokens 1 and 2 share q's rest of 0.1, tokens 3 and 4 share p's"


def test_no_unknown_token_is_likelier_than_the_last_candidate():
    p, q = known({1: 0.5, 2: 0.3}), known({1: 0.35, 3: 0.05}, vocab=100)
    low, high = overlap_bounds(p, q)
    assert low == pytest.approx(0.35)
    assert high == pytest.approx(0.35 + min(0.2 + 0.05, 0.6 + 0.05)), "of token 2 at most 0.05 is shared, not 0.3"


def test_a_whole_vocabulary_leaves_nothing_open():
    p, q = known({0: 0.7, 1: 0.3}, vocab=2), known({0: 0.4, 1: 0.6}, vocab=2)
    assert overlap_bounds(p, q) == pytest.approx((0.7, 0.7))
    assert kl_bound(p, q) == pytest.approx(0.7 * math.log(0.7 / 0.4) + 0.3 * math.log(0.3 / 0.6))


@pytest.mark.parametrize("top", [1, 2, 4, 9])
def test_bounds_hold_for_random_distributions_and_are_reached(top):
    rng = np.random.default_rng(top)
    rows = np.log(rng.dirichlet(np.full(9, 0.4), size=400).clip(1e-12))
    rows -= np.log(np.exp(rows).sum(-1, keepdims=True))
    other = np.roll(rows, 1, axis=0)
    bounds, truth = truncated(known_rows(rows, top), known_rows(other, top)), compare([rows], [other])
    exact = np.minimum(np.exp(rows), np.exp(other)).sum(-1)
    assert (bounds.low <= exact + 1e-12).all()
    assert (exact <= bounds.high + 1e-12).all()
    assert (exact - bounds.low).min() < 0.03, "the lower bound is reached"
    assert (bounds.high - exact).min() < 0.03, "and so is the upper one"
    assert (bounds.same == (rows.argmax(-1) == other.argmax(-1))).all()
    found = summarise([bounds])
    assert found.worst_prompt.value - 1e-12 <= truth.worst_prompt.value <= found.worst_prompt.high + 1e-12
    assert found.tail.value - 1e-12 <= truth.tail.value <= found.tail.high + 1e-12
    assert found.kl_mean <= truth.kl_mean + 1e-12
    assert found.top1 == truth.top1
    if top == 9:
        assert found.unseen == 0.0
        assert found.gap.value == pytest.approx(truth.gap.value)


def test_a_known_token_beyond_the_candidates_counts_but_is_no_candidate():
    p = Known({1: math.log(0.6), 2: math.log(0.3), 9: math.log(0.01)}, top=2)
    assert p.least == pytest.approx(0.09), "no unknown token has more than the rest"
    assert p.rest == pytest.approx(0.09)


def test_rounded_probabilities_may_sum_up_to_a_little_more_than_one():
    assert Known({0: math.log(0.7), 1: math.log(0.3009)}, 2).rest == 0.0
    with pytest.raises(TargetFault, match=r"sum up to 1\.1"):
        Known({0: math.log(0.7), 1: math.log(0.4)}, 2)


@pytest.mark.parametrize("value", [3.0, math.nan, math.inf])
def test_raw_logits_are_no_distribution(value):
    with pytest.raises(TargetFault, match="token 5"):
        Known({4: -1.0, 5: value}, 2)


def test_misuse_is_named():
    with pytest.raises(KitError, match="at least one candidate"):
        Known({}, 1)
    with pytest.raises(KitError, match="1 positions against 0"):
        truncated([known({0: 0.5})], [])
