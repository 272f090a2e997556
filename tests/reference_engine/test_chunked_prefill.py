"""Chunked prefill equals one shot: tokens, logprobs, positions, budget."""

import pytest
import torch

# fp32 sums in another order, over logits of about 20: an absolute bound in nats.
ATOL = 1e-4
LENGTHS = (1, 2, 15, 16, 17, 33, 65, 129)


@pytest.fixture(scope="module")
def expected(oracle, prompts):
    """Per prompt length: logprob of each prompt token and greedy continuation, by transformers."""
    found = {}
    for length in LENGTHS:
        ids = torch.tensor(prompts[length])
        with torch.inference_mode():
            rows = oracle(ids[None]).logits[0].log_softmax(-1)
            full = oracle.generate(ids[None], max_new_tokens=8, do_sample=False, eos_token_id=None, pad_token_id=256)
        found[length] = (rows[:-1].gather(1, ids[1:, None])[:, 0], full[0, length:].tolist())
    return found


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 15, 16, 17, 64, 500])
def test_any_chunk_gives_the_logprobs_of_one_shot(lab, prompts, expected, chunk):
    lab = lab(chunked_prefill_size=chunk, page_size=16)
    for length in LENGTHS:
        lab.add(str(length), prompts[length], logprob_start_len=0)
    for rid, answer in lab.run().items():
        want_logprobs, want_ids = expected[int(rid)]
        assert answer.ids == want_ids, f"prompt of {rid}, chunk {chunk}"
        assert answer.prompt_logprobs[0] is None
        got = torch.tensor(answer.prompt_logprobs[1:])
        torch.testing.assert_close(
            got, want_logprobs, atol=ATOL, rtol=0, msg=lambda m, rid=rid: f"prompt of {rid}: {m}"
        )
    lab.at_rest()


@pytest.mark.parametrize("chunk", [1, 5, 16, 64])
def test_a_step_never_exceeds_its_budget_and_every_token_is_computed_once(lab, prompts, chunk):
    lab = lab(chunked_prefill_size=chunk, prefix_cache=False)
    for length in LENGTHS:
        lab.add(str(length), prompts[length], max_new_tokens=5)
    lab.run()
    assert max(sum(n for _, n in plan) for plan in lab.plans) <= chunk
    for length in LENGTHS:
        computed = sum(n for plan in lab.plans for rid, n in plan if rid == str(length))
        assert computed == length + 4, f"prompt of {length}: the last of 5 tokens needs no KV"


def test_decodes_come_before_prefill_chunks_and_go_on_beside_them(lab, prompts):
    lab = lab(chunked_prefill_size=8)
    lab.add("short", prompts[2], max_new_tokens=20)
    lab.step()
    lab.add("long", prompts[128], max_new_tokens=1)
    lab.step()
    assert lab.plans[-1] == [("short", 1), ("long", 7)]
    lab.run()
    assert len(lab.answers["short"].ids) == 20


def test_no_token_comes_before_the_last_chunk(lab, prompts):
    lab = lab(chunked_prefill_size=16)
    lab.add("a", prompts[65], max_new_tokens=2)
    for _ in range(4):
        lab.step()
        assert lab.answers["a"].events == []
    lab.step()
    assert len(lab.answers["a"].ids) == 1


def test_budget_of_one_serves_many_requests_to_the_end(lab, prompts):
    lab = lab(chunked_prefill_size=1)
    for name in "abc":
        lab.add(name, prompts[17], max_new_tokens=3)
    answers = lab.run()
    assert len({tuple(a.ids) for a in answers.values()}) == 1
    assert len(answers["c"].ids) == 3


def test_top_logprobs_of_prompt_and_output(lab, oracle, prompts):
    answer = lab(chunked_prefill_size=10).ask("a", prompts[33], logprob_start_len=5, top_logprobs_num=3)
    first = answer.events[0]
    with torch.inference_mode():
        rows = oracle(torch.tensor([prompts[33] + answer.ids])).logits[0].log_softmax(-1)
    assert [token for _, token in first.input_token_logprobs] == prompts[33][5:]
    assert first.input_top_logprobs[0] is None
    got = [*first.input_top_logprobs[1:], *(e.top_logprobs for e in answer.events)]
    want = rows[5 : len(rows) - 1].topk(3)
    assert [[token for _, token in row] for row in got] == want.indices.tolist()
    torch.testing.assert_close(torch.tensor([[v for v, _ in row] for row in got]), want.values, atol=ATOL, rtol=0)
    chosen = rows[32:-1].gather(1, torch.tensor(answer.ids)[:, None])[:, 0]
    torch.testing.assert_close(torch.tensor(answer.logprobs), chosen, atol=ATOL, rtol=0)
