"""Batch-mates, retraction and aborts change nothing about anybody else."""

import pytest
import torch
from transformers import LlamaForCausalLM

ATOL = 1e-4  # see test_chunked_prefill


@pytest.fixture(scope="module")
def greedy(oracle, prompts):
    """What transformers continues each prompt with, alone."""
    with torch.inference_mode():
        return {
            n: oracle.generate(
                torch.tensor([p]), max_new_tokens=12, do_sample=False, eos_token_id=None, pad_token_id=256
            )[0, n:].tolist()
            for n, p in prompts.items()
        }


def test_a_full_batch_answers_as_transformers_does_one_by_one(lab, prompts, greedy):
    lab = lab()
    for n, prompt in prompts.items():
        lab.add(str(n), prompt, max_new_tokens=12)
    answers = lab.run()
    assert {int(rid): a.ids for rid, a in answers.items()} == greedy
    assert max(len(plan) for plan in lab.plans) >= 8, "they were meant to decode together"
    lab.at_rest()


def test_logprobs_do_not_depend_on_batch_mates(lab, prompts):
    alone = lab().ask("a", prompts[33], logprob_start_len=0)
    crowd = lab()
    crowd.add("a", prompts[33], logprob_start_len=0)
    for n in (1, 65, 129, 200):
        crowd.add(str(n), prompts[n])
    together = crowd.run()["a"]
    assert together.ids == alone.ids
    assert together.logprobs == pytest.approx(alone.logprobs, abs=ATOL)
    assert together.prompt_logprobs[1:] == pytest.approx(alone.prompt_logprobs[1:], abs=ATOL)


@pytest.mark.parametrize("pages", [15, 20, 30])
@pytest.mark.parametrize("host", [0, 64])
def test_a_pool_too_small_for_all_retracts_and_still_answers_the_same(lab, prompts, greedy, pages, host):
    lab = lab(page_size=4, max_total_tokens=4 * pages, host_kv_tokens=host, chunked_prefill_size=16)
    for n in (1, 15, 16, 17, 31, 33):
        lab.add(str(n), prompts[n], max_new_tokens=12, logprob_start_len=0)
    answers = lab.run()
    assert {int(rid): a.ids for rid, a in answers.items()} == {n: greedy[n] for n in (1, 15, 16, 17, 31, 33)}
    assert all(len(a.prompt_logprobs) == int(rid) for rid, a in answers.items())
    lab.at_rest()


def test_retraction_happens_and_reports_no_hit_on_own_work(lab, prompts, greedy):
    lab = lab(page_size=4, max_total_tokens=80, chunked_prefill_size=16)
    for n in (31, 33):
        lab.add(str(n), prompts[n], max_new_tokens=12)
    answers = lab.run()
    assert lab.scheduler.stats.retracted_total > 0, "the pool was meant to be too small"
    assert [a.events[0].cached_tokens for a in answers.values()] == [0, 0]
    assert {int(rid): a.ids for rid, a in answers.items()} == {n: greedy[n] for n in (31, 33)}


def test_a_request_that_fills_the_whole_pool_runs_alone(lab, prompts):
    lab = lab(page_size=4, max_total_tokens=36, chunked_prefill_size=8)
    lab.add("a", prompts[17], max_new_tokens=19)
    lab.add("b", prompts[31], max_new_tokens=5)
    answers = lab.run()
    assert [len(a.ids) for a in answers.values()] == [19, 5]
    lab.at_rest()


@pytest.mark.parametrize("steps", range(12))
def test_abort_after_any_step_returns_every_page(lab, prompts, greedy, steps):
    lab = lab(page_size=4, chunked_prefill_size=8, max_running_requests=2)
    lab.add("gone", prompts[33], max_new_tokens=12)
    lab.add("mate", prompts[17], max_new_tokens=12)
    lab.add("queued", prompts[16], max_new_tokens=12)
    for _ in range(steps):
        lab.step()
    lab.take(lab.scheduler.abort("gone", "enough"))
    lab.take(lab.scheduler.abort("queued", "enough"))
    for name in ("gone", "queued"):
        assert lab.answers[name].finish.type == "abort"
        assert lab.answers[name].finish.message == "enough"
    lab.run()
    assert lab.answers["mate"].ids == greedy[17]
    assert lab.scheduler.stats.aborted_total == 2
    lab.at_rest()
    assert lab.ask("after", prompts[33], max_new_tokens=12).ids == greedy[33], "no page of the aborted was poisoned"


def test_abort_of_all_and_of_an_unknown_id(lab, prompts):
    lab = lab(max_running_requests=1)
    for name in "ab":
        lab.add(name, prompts[17])
    lab.step()
    lab.take(lab.scheduler.abort("nobody", ""))
    assert lab.scheduler.has_work
    lab.take(lab.scheduler.abort(None, "all"))
    assert not lab.scheduler.has_work
    assert [a.finish.type for a in lab.answers.values()] == ["abort", "abort"]
    lab.at_rest()


def test_the_golden_model_answers_as_transformers_does(golden, make_lab):
    model = LlamaForCausalLM.from_pretrained(golden, dtype=torch.float32).eval()
    lab = make_lab(golden)
    texts = ("def main(", "import os\n", "The value of the", "class Error(Exception):\n    ")
    for text in texts:
        lab.add(text, lab.tokenizer.encode(text), max_new_tokens=24)
    for text, answer in lab.run().items():
        ids = torch.tensor([lab.tokenizer.encode(text)])
        with torch.inference_mode():
            full = model.generate(ids, max_new_tokens=24, do_sample=False, eos_token_id=None, pad_token_id=260)
        assert answer.ids == full[0, ids.shape[1] :].tolist(), text


def test_a_hit_is_looked_up_again_after_a_retraction(lab, prompts):
    """The cached pages that a request began with may be gone when it returns (vllm-project/vllm#18957)."""
    alone = lab().ask("a", prompts[17], max_new_tokens=20).ids
    lab = lab(page_size=4, max_total_tokens=48, chunked_prefill_size=16)
    lab.ask("warm", prompts[17], max_new_tokens=1)
    lab.add("old", prompts[15], max_new_tokens=33)
    lab.add("a", prompts[17], max_new_tokens=20)
    answer = lab.run()["a"]
    assert lab.scheduler.stats.retracted_total > 0, "the pool was meant to be too small"
    computed = sum(n for plan in lab.plans for rid, n in plan if rid == "a")
    assert computed > 17 + 19, "its hit of 16 tokens was meant to be evicted while it waited"
    assert answer.ids == alone
    assert answer.events[0].cached_tokens == 16
