"""Distributions, penalties and seeds."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from gaugeblock.reference.engine.sampler import SampleContext, adjust, distribution, draw, sample, uniform
from gaugeblock.reference.engine.types import RequestError, SamplingParams


def context(output=(), prompt=(), seed=1, stop_ids=(), **fields):
    return SampleContext(SamplingParams(**fields), seed, prompt, output, frozenset(stop_ids))


def random_logits(seed, vocab=50):
    return torch.randn(vocab, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("top_k", [-1, 1, 7])
@pytest.mark.parametrize("top_p", [0.2, 0.9, 1.0])
@pytest.mark.parametrize("min_p", [0.0, 0.1])
def test_filters_equal_transformers(temperature, top_k, top_p, min_p):
    logits = random_logits(3)
    rows = TemperatureLogitsWarper(temperature)(None, logits[None])
    rows = TopKLogitsWarper(top_k)(None, rows) if top_k > 0 else rows
    rows = TopPLogitsWarper(top_p)(None, rows) if top_p < 1 else rows
    rows = MinPLogitsWarper(min_p)(None, rows) if min_p else rows
    got = distribution(logits, SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p))
    torch.testing.assert_close(got, rows[0].softmax(-1), atol=1e-12, rtol=0)


def test_top_p_applies_to_what_top_k_left():
    probs = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    got = distribution(probs.log(), SamplingParams(top_k=2, top_p=0.55))
    assert got.tolist() == [1.0, 0.0, 0.0, 0.0], "0.4 of the renormalised 0.7 is already 57%"


def test_ties_are_broken_by_the_lower_id():
    assert distribution(torch.zeros(4, dtype=torch.float64), SamplingParams(top_k=2)).tolist() == [0.5, 0.5, 0, 0]


def test_tiny_temperature_is_greedy_and_finite():
    got = distribution(random_logits(4), SamplingParams(temperature=1e-300))
    assert got.argmax() == random_logits(4).argmax()
    assert float(got.sum()) == 1.0


def test_repetition_penalty_equals_transformers():
    prompt, output = (1, 2, 3), (3, 4)
    want = RepetitionPenaltyLogitsProcessor(1.7)(torch.tensor([prompt + output]), random_logits(5)[None])[0]
    got = adjust(random_logits(5), context(output, prompt, repetition_penalty=1.7))
    torch.testing.assert_close(got, want)


def test_frequency_and_presence_count_the_output_alone():
    logits = torch.zeros(5)
    got = adjust(logits, context((1, 1, 2), (3,), frequency_penalty=0.5, presence_penalty=0.25))
    assert got.tolist() == [0.0, -1.25, -0.75, 0.0, 0.0]
    assert logits.tolist() == [0.0] * 5, "the caller's logits stay raw"


def test_bias_and_the_ban_on_stopping():
    got = adjust(torch.zeros(4), context((1,), stop_ids=(3,), min_new_tokens=2, logit_bias={0: 1.5}))
    assert got.tolist() == [1.5, 0.0, 0.0, -np.inf]
    assert adjust(torch.zeros(4), context((1, 1), stop_ids=(3,), min_new_tokens=2))[3] == 0.0


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=8).filter(lambda w: sum(w) > 0), st.floats(0, 1, exclude_max=True)
)
def test_a_draw_inverts_the_distribution(weights, u):
    probs = torch.tensor(weights, dtype=torch.float64) / sum(weights)
    token = draw(probs, u)
    assert probs[token] > 0
    below, upto = float(probs[:token].sum()), float(probs[: token + 1].sum())
    assert below - 1e-9 <= u <= upto + 1e-9


def test_draws_follow_the_distribution():
    probs = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    n = 4000
    counts = np.bincount([draw(probs, uniform(7, i)) for i in range(n)], minlength=3)
    chi2 = float((((counts - n * probs.numpy()) ** 2) / (n * probs.numpy())).sum())
    assert chi2 < 13.8, f"{counts}: below the 99.9% point of chi-squared with 2 degrees of freedom"


def test_rows_of_one_batch_keep_their_own_rules():
    logits = torch.stack([random_logits(i).float() for i in range(3)])
    raw = logits.clone()
    mixed = [context(temperature=0.0), context(temperature=1.0, seed=5), context(temperature=0.0, logit_bias={9: 1e3})]
    together = sample(logits, mixed)
    assert together == [sample(logits[i : i + 1], mixed[i : i + 1])[0] for i in range(3)]
    assert (together[0], together[2]) == (int(raw[0].argmax()), 9)
    assert torch.equal(logits, raw)


def test_a_seed_reproduces_whatever_the_batch(lab, prompts):
    options = {"temperature": 1.0, "max_new_tokens": 20}
    alone = lab().ask("a", prompts[17], seed=42, **options).ids
    crowd = lab(chunked_prefill_size=16)
    crowd.add("mate", prompts[65], seed=1, **options)
    crowd.add("a", prompts[17], seed=42, **options)
    crowd.add("twin", prompts[17], seed=42, **options)
    crowd.add("other", prompts[17], seed=43, **options)
    crowd.add("free", prompts[17], **options)
    answers = crowd.run()
    assert answers["a"].ids == answers["twin"].ids == alone
    assert len({tuple(answers[name].ids) for name in ("a", "other", "free")}) == 3


def test_logprobs_are_those_of_the_raw_logits(lab, prompts):
    plain = lab().ask("a", prompts[17], max_new_tokens=1, top_logprobs_num=272)
    raw = {token: value for value, token in plain.events[0].top_logprobs}
    warm = lab().ask("a", prompts[17], max_new_tokens=1, temperature=3.0, top_k=5, seed=3, logit_bias={7: 5.0})
    assert warm.logprobs[0] == pytest.approx(raw[warm.ids[0]], abs=1e-5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"temperature": -1.0}, "temperature must be in"),
        ({"top_p": 0.0}, "top_p must be in"),
        ({"top_k": 0}, "top_k must be -1 or"),
        ({"max_new_tokens": -1}, "max_new_tokens must be >= 0"),
        ({"min_new_tokens": 9, "max_new_tokens": 8}, "min_new_tokens must be in"),
        ({"logit_bias": {50: 1.0}}, "token id 50 is outside the vocabulary of 50"),
        ({"temperature": float("nan")}, "temperature must be in"),
    ],
)
def test_illegal_parameters_are_named(fields, message):
    with pytest.raises(RequestError, match=message):
        SamplingParams(**fields).validate(50)
