"""A cached prefix saves work and changes nothing."""

import pytest
import torch

ATOL = 1e-4  # see test_chunked_prefill


@pytest.mark.parametrize(("length", "hit"), [(15, 0), (16, 0), (17, 16), (32, 16), (33, 32), (65, 64), (128, 112)])
def test_a_repeat_reuses_whole_pages_but_computes_at_least_one_token(lab, prompts, length, hit):
    lab = lab(page_size=16)
    first = lab.ask("first", prompts[length], max_new_tokens=3)
    second = lab.ask("second", prompts[length], max_new_tokens=3)
    assert [first.events[0].cached_tokens, second.events[0].cached_tokens] == [0, hit]
    assert second.ids == first.ids
    assert second.logprobs == pytest.approx(first.logprobs, abs=ATOL)
    computed = sum(n for plan in lab.plans for rid, n in plan if rid == "second")
    assert computed == length + 2 - hit
    lab.at_rest()


def test_flushed_and_disabled_caches_give_the_same_answer(lab, prompts):
    warm, off = lab(), lab(prefix_cache=False)
    cold = warm.ask("cold", prompts[65])
    cached = warm.ask("cached", prompts[65])
    assert warm.scheduler.kv.flush()
    flushed = warm.ask("flushed", prompts[65])
    off.ask("x", prompts[65])
    disabled = off.ask("disabled", prompts[65])
    assert [a.events[0].cached_tokens for a in (cold, cached, flushed, disabled)] == [0, 64, 0, 0]
    assert cold.ids == cached.ids == flushed.ids == disabled.ids


def test_an_answer_is_a_prefix_of_the_next_turn(lab, prompts):
    lab = lab(page_size=4)
    first = lab.ask("first", prompts[15], max_new_tokens=10)
    turn = lab.ask("second", prompts[15] + first.ids + prompts[2])
    assert turn.events[0].cached_tokens == 24, "15 + 10 tokens, of which the last has no KV: 6 pages of 4"
    assert turn.ids == lab_without_cache(lab, prompts[15] + first.ids + prompts[2])


def lab_without_cache(lab, prompt):
    lab.scheduler.kv.flush()
    return lab.ask("plain", prompt).ids


def test_other_tokens_share_nothing_and_a_common_beginning_shares_that(lab, prompts):
    lab = lab(page_size=16)
    lab.ask("a", prompts[65])
    other = [(t + 1) % 256 for t in prompts[65]]
    assert lab.ask("other", other).events[0].cached_tokens == 0
    assert lab.ask("half", prompts[65][:40] + other[40:]).events[0].cached_tokens == 32
    assert lab.ask("shifted", prompts[65][1:]).events[0].cached_tokens == 0


@pytest.mark.parametrize("start", [0, 1, 15, 16, 17, 40, 64])
def test_prompt_logprobs_read_no_page_past_the_first_needed_position(lab, prompts, start):
    lab = lab(page_size=16)
    cold = lab.ask("cold", prompts[65], logprob_start_len=0)
    warm = lab.ask("warm", prompts[65], logprob_start_len=start)
    assert warm.events[0].cached_tokens == start // 16 * 16
    assert warm.prompt_logprobs[0] is None
    assert warm.prompt_logprobs[1:] == pytest.approx(cold.prompt_logprobs[start + 1 :], abs=ATOL)
    assert len(warm.prompt_logprobs) == 65 - start


def test_requests_with_one_prompt_at_once_end_with_one_copy(lab, prompts):
    lab = lab(page_size=16)
    for name in "abcd":
        lab.add(name, prompts[64], max_new_tokens=1, logprob_start_len=0)
    answers = lab.run()
    assert len({tuple(a.ids) for a in answers.values()}) == 1
    assert lab.scheduler.count().cached_tokens == 64
    lab.at_rest()


def test_an_evicted_page_comes_back_from_the_host_bit_identical(lab, prompts):
    lab = lab(page_size=16, max_total_tokens=160, host_kv_tokens=1024)
    kv = lab.scheduler.kv
    first = lab.ask("first", prompts[65], max_new_tokens=2)
    before = {node.key: kv.storage.read_page(node.page) for node in kv.index}
    lab.ask("filler", prompts[129], max_new_tokens=2)
    assert kv.evicted >= 3
    again = lab.ask("again", prompts[65], max_new_tokens=2)
    assert again.events[0].cached_tokens == 64
    assert kv.promoted >= 3
    after = {node.key: kv.storage.read_page(node.page) for node in kv.index}
    for key, data in before.items():
        assert torch.equal(after[key], data)
    assert again.ids == first.ids
    assert lab.scheduler.count().host_tokens <= 1024
    lab.at_rest()
