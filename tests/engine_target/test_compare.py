"""What the engine checks compare with, and how they say what differs."""

import pytest

from gaugeblock.conformance.engine.bounds import BOUNDS, bound_of
from gaugeblock.conformance.engine.chat_variants import name_count, variants
from gaugeblock.conformance.engine.compare import compare_greedy, compare_logprobs, read_cache
from gaugeblock.conformance.engine.prompts import prose
from gaugeblock.conformance.engine.test_eng_011_lengths import BUDGET, lengths
from gaugeblock.fixtures.embedded import tiny_model
from gaugeblock.fixtures.errors import TargetFault
from gaugeblock.fixtures.oracle import oracle_for
from gaugeblock.fixtures.targets.answers import Finish, Generation, TokenLogprob

FP32 = BOUNDS["float32"]


def answer(*tokens, lead=1.0, logprob=-0.5, cached=None):
    chosen = tuple(TokenLogprob(logprob, token) for token in tokens)
    tops = tuple((TokenLogprob(logprob, token), TokenLogprob(logprob - lead, 9)) for token in tokens)
    return Generation("t", tokens, Finish("length"), 3, len(tokens), cached, None, chosen, None, tops, "r", {})


def test_equal_answers_agree_and_report_the_largest_difference():
    assert compare_greedy("x", answer(1, 2), answer(1, 2, logprob=-0.5004), FP32) == pytest.approx(4e-4)


def test_another_token_is_named_with_its_step_and_lead():
    with pytest.raises(AssertionError, match=r"x: output token 1 is 3, expected 2, ahead by 1 nats"):
        compare_greedy("x", answer(1, 3), answer(1, 2), FP32)


def test_a_tie_is_no_difference_and_ends_the_comparison():
    assert compare_greedy("x", answer(1, 3), answer(1, 2, lead=1e-3), FP32) == 0.0


def test_a_shorter_answer_is_named():
    with pytest.raises(AssertionError, match=r"1 output tokens \(1,\), expected 2"):
        compare_greedy("x", answer(1), answer(1, 2), FP32)


def test_an_answer_without_logprobs_is_the_targets_fault():
    bare = Generation("t", (1,), Finish("length"), 3, 1, None, None, None, None, None, "r", {})
    with pytest.raises(TargetFault, match="no logprobs although they were asked for"):
        compare_greedy("x", bare, answer(1), FP32)


def test_the_first_position_beyond_the_bound_and_the_worst_are_named():
    with pytest.raises(AssertionError, match=r"position 7 is -1\.1.*2 of 3 positions differ, worst 4\.00e-01 at 8"):
        compare_logprobs("x", [-1.0, -1.1, -1.4], [-1.0, -1.0, -1.0], FP32, start=6)


def test_not_a_number_is_a_difference():
    with pytest.raises(AssertionError, match="position 0 is nan"):
        compare_logprobs("x", [float("nan")], [-1.0], FP32)


def test_a_mean_counts_from_sixteen_values_on():
    gap = FP32.each * 0.9
    assert compare_logprobs("x", [gap] * 15, [0.0] * 15, FP32) == gap
    with pytest.raises(AssertionError, match="on average over 16 positions"):
        compare_logprobs("x", [gap] * 16, [0.0] * 16, FP32)


class Told:
    """A target that tells its dtype and page size."""

    features = frozenset({"cached-tokens"})
    folder = None
    page_size = 16

    def __init__(self, dtype=None):
        self.info = {} if dtype is None else {"dtype": dtype}


@pytest.mark.parametrize(
    ("told", "used"), [("float32", "float32"), ("torch.float16", "float16"), ("auto", "bfloat16"), (None, "bfloat16")]
)
def test_the_bound_is_that_of_the_dtype_told(told, used):
    assert bound_of(Told(told)).dtype == used


def test_a_hit_is_asked_for_in_whole_pages():
    assert read_cache(Told(), answer(1, cached=32), 47, "x") == 32
    with pytest.raises(AssertionError, match="cached_tokens is 16, at least 32"):
        read_cache(Told(), answer(1, cached=16), 47, "x")


def test_lengths_stand_around_pages_and_chunks_within_the_budget():
    assert {1, 15, 16, 17, 63, 64, 65, 128, 129} <= set(lengths(16, 64, 2048))
    assert 2049 in lengths(1, 2048, 8192)
    assert max(lengths(16, 2048, 2048)) < 2044
    assert all(sum(lengths(page, 8192, 32768)) <= BUDGET for page in (1, 16, 128))


def test_prompts_of_two_seeds_part_at_once_and_one_seed_repeats():
    assert prose("a", 9) == prose("a", 9)
    assert prose("a", 9).split()[0] != prose("b", 9).split()[0]


CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]


def test_each_mistake_of_a_template_has_its_name():
    oracle = oracle_for(tiny_model())
    right = oracle.chat_ids(CHAT)
    known = variants(oracle, CHAT)
    assert known["the BOS is doubled"] == (right[0], *right)
    assert known["the BOS is missing"] == right[1:]
    assert right[: len(known["the generation prompt is missing"])] == known["the generation prompt is missing"]
    assert right not in known.values()
    assert "the BOS is doubled" in name_count(oracle, CHAT, len(right) + 1)
    assert name_count(oracle, CHAT, 1) == "no known mistake gives that count"


def test_the_oracle_reads_special_tokens_and_writes_text_back():
    oracle = oracle_for(tiny_model())
    ids = oracle.chat_ids(CHAT)
    assert oracle.decode(ids, skip_special_tokens=False) == oracle.render_chat(CHAT)
    assert oracle.eos_ids <= set(oracle.special_tokens.values())
