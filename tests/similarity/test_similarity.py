"""The measures on distributions whose answers are known, and the gate on what it must tell apart."""

import numpy as np
import pytest

from gaugeblock.conformance.similarity import Gate, compare, complaints, flips, kl, log_probabilities, overlap, top1
from gaugeblock.fixtures.errors import KitError

GATE = Gate(tail=0.9)


def logs(*rows):
    with np.errstate(divide="ignore"):
        return np.log(np.array(rows, dtype=np.float64))


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_known_values():
    p, q = logs([0.5, 0.25, 0.25], [1.0, 0.0, 0.0]), logs([0.25, 0.5, 0.25], [0.0, 0.5, 0.5])
    assert overlap(p, q) == pytest.approx([0.75, 0.0])
    assert kl(p, q) == pytest.approx([0.5 * np.log(2) - 0.25 * np.log(2), np.inf])
    assert kl(q, q) == pytest.approx([0.0, 0.0])
    assert top1(p, q).tolist() == [False, False]
    assert top1(p, p).tolist() == [True, True]


def test_an_offset_changes_nothing_and_logprobs_pass_through(rng):
    logits = rng.normal(size=(5, 7)) * 8
    assert overlap(logits, logits + 1000) == pytest.approx(np.ones(5))
    assert log_probabilities(log_probabilities(logits)) == pytest.approx(log_probabilities(logits))


def test_overlap_is_one_minus_total_variation(rng):
    p, q = rng.normal(size=(20, 50)), rng.normal(size=(20, 50))
    distance = np.abs(np.exp(log_probabilities(p)) - np.exp(log_probabilities(q))).sum(-1) / 2
    assert overlap(p, q) == pytest.approx(1 - distance)
    assert overlap(p, q) == pytest.approx(overlap(q, p))
    assert (kl(p, q) >= 0).all()
    assert (overlap(p, q) >= 1 - np.sqrt(kl(p, q) / 2)).all(), "Pinsker's inequality"


def test_flips_count_only_beyond_the_margin():
    near, far = logs([0.5, 0.4, 0.1]), logs([0.9, 0.05, 0.05])
    other = logs([0.1, 0.8, 0.1])
    assert flips(near, other).tolist() == [False]
    assert flips(far, other).tolist() == [True]
    assert flips(near, other, margin=0.1).tolist() == [True]
    assert flips(far, far).tolist() == [False]


def test_places_name_prompt_and_position(rng):
    reference = [rng.normal(size=(n, 30)) for n in (40, 160)]
    other = [row.copy() for row in reference]
    other[1][17, 3] += 30.0
    found = compare(reference, other)
    assert (found.lowest.prompt, found.lowest.position) == (1, 17)
    assert (found.kl_max.prompt, found.kl_max.position) == (1, 17)
    assert (found.worst_prompt.prompt, found.worst_prompt.position) == (1, 17)
    assert found.tail.value == pytest.approx(1.0), "one position in two hundred lies below the first percentile"
    assert found.positions == 200
    assert found.describe()["worst_prompt"]["prompt"] == 1


def test_the_tail_sees_what_the_mean_does_not(rng):
    reference = [rng.normal(size=(100, 30)) for _ in range(4)]
    other = [row.copy() for row in reference]
    for row in other:
        row[[10, 50]] = rng.normal(size=(2, 30)) * 10
    found = compare(reference, other)
    assert found.worst_prompt.value > 0.95
    assert [text.split(" overlap")[0] for text in complaints(found, GATE)] == ["first-percentile"]


def test_gate_passes_the_same_and_fails_another_prompt(rng):
    reference = [rng.normal(size=(50, 30)) * 5 for _ in range(3)]
    assert complaints(compare(reference, reference), GATE) == []
    assert len(complaints(compare(reference, reference[1:] + reference[:1]), GATE)) == 2


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_what_is_not_finite_never_passes(rng, poison):
    reference = [rng.normal(size=(10, 8))]
    other = [reference[0].copy()]
    other[0][4, 2] = poison
    found = compare(reference, other)
    assert found.lowest.value == 0.0
    assert found.kl_max.value == np.inf
    assert found.describe()["kl_max"]["value"] is None, "JSON has no infinity"
    assert complaints(found, GATE)
    with pytest.raises(KitError, match="no distribution"):
        compare(other, reference)


def test_masked_tokens_are_probability_zero():
    p = logs([0.5, 0.5, 0.0])
    assert overlap(p, p) == pytest.approx([1.0])
    assert kl(p, p) == pytest.approx([0.0])


@pytest.mark.parametrize(
    ("reference", "other", "words"),
    [
        ([], [], "0 prompts"),
        ([np.zeros((2, 3))], [], "1 prompts against 0"),
        ([np.zeros((2, 3))], [np.zeros((2, 4))], "shapes"),
        ([np.zeros((2, 1))], [np.zeros((2, 1))], "at least two tokens"),
        ([np.zeros(3)], [np.zeros(3)], r"\[positions, vocab\]"),
    ],
)
def test_misuse_is_named(reference, other, words):
    with pytest.raises(KitError, match=words):
        compare(reference, other)
