"""What the in-process checks stand on: labs that end, contents that name their owner, messages that name the place."""

import numpy as np
import pytest
import torch

from gaugeblock.conformance.prefill.judging import require_same
from gaugeblock.fixtures.errors import TargetFault
from gaugeblock.fixtures.targets.inprocess import held_out_prompts, load_inprocess, mixed_prompt, target_call
from gaugeblock.fixtures.targets.inprocess_kv import PAGE, KVBench, tokens_of
from gaugeblock.reference.engine import scheduler


@pytest.fixture(scope="module")
def loaded():
    return load_inprocess()


def test_a_lab_gives_the_whole_distribution_of_each_position(loaded):
    prompt = mixed_prompt("rows", 30)
    lab = loaded.lab()
    answer = lab.ask("a", prompt, [7, 7], new=3)
    rows = answer.rows(lab.vocab)
    assert lab.chunks("a") == [7, 7, 7, 7, 2, 1, 1], "the last budget given goes on"
    assert rows.shape == (30 + 3 - 1, 320)
    assert np.exp(rows).sum(-1) == pytest.approx(np.ones(32), abs=1e-5)
    assert rows == pytest.approx(loaded.one_shot([*prompt, *answer.ids[:-1]]), abs=5e-4)
    assert answer.ids == rows[-3:].argmax(-1).tolist()


def test_a_lab_ends_when_the_target_does_not(loaded, monkeypatch):
    lab = loaded.lab()
    lab.add("a", mixed_prompt("endless", 10))
    monkeypatch.setattr(lab.scheduler, "step", list)
    with pytest.raises(TargetFault, match="no end after 31 steps"):
        lab.run()


def test_a_step_over_its_budget_is_the_targets_fault(loaded, monkeypatch):
    lab = loaded.lab(chunked_prefill_size=8)
    lab.add("a", mixed_prompt("budget", 20))
    monkeypatch.setattr(scheduler, "min", lambda *values: max(values), raising=False)
    with pytest.raises(TargetFault, match="budget is 8"):
        lab.scheduler.plan()


def test_what_the_target_raises_is_its_fault_and_assertions_pass_through():
    with pytest.raises(TargetFault, match="a call raised KeyError: 'x'"), target_call("a call"):
        raise KeyError("x")
    with pytest.raises(AssertionError, match=r"^mine$"), target_call("a call"):
        raise AssertionError("mine")


def test_prompts_are_of_their_length_and_differ(loaded):
    prompts = held_out_prompts(loaded.folder, 96, 24)
    assert len(prompts) == len(set(prompts)) == 24
    assert {len(p) for p in prompts} == {96}
    assert all(p[0] == 256 and 256 not in p[1:] for p in prompts)
    assert len(mixed_prompt("a", 83)) == 83
    assert mixed_prompt("a", 83) != mixed_prompt("b", 83)


def test_require_same_names_the_position_and_its_chunk():
    wanted = np.zeros((10, 4))
    rows = wanted.copy()
    assert require_same("fine", rows, wanted, [6, 4]) == 0.0
    rows[7, 2] = 0.5
    with pytest.raises(AssertionError, match=r"label: .* by 0.5 nats at most, first at position 7, in chunk 2 of 2"):
        require_same("label", rows, wanted, [6, 4])
    rows[3] = np.nan
    with pytest.raises(AssertionError, match="first at position 3, in chunk 1 of 2"):
        require_same("label", rows, wanted, [6, 4])
    with pytest.raises(AssertionError, match="9 positions have logprobs, 10 should"):
        require_same("label", rows[1:], wanted)


def test_page_contents_depend_on_all_tokens_so_far():
    bench = KVBench(4)
    ours, theirs = tokens_of("a", 2), [*tokens_of("b", 1), *tokens_of("a", 2)[PAGE:]]
    assert ours[PAGE:] == theirs[PAGE:]
    assert not torch.equal(bench.pattern(ours, 1), bench.pattern(theirs, 1))
    assert torch.equal(bench.pattern(ours, 1), bench.pattern([*ours, 1, 2], 1))
    allocation = bench.begin(ours)
    bench.compute(allocation, ours)
    assert bench.wrong_page(allocation, ours, 2) is None
    bench.manager.storage.k[1, allocation.pages[1], 2, 0, 3] += 1e-6
    assert "page 1 of 2 does not hold the bytes of its tokens: 1 of" in bench.wrong_page(allocation, ours, 2)
    bench.manager.storage.write_page(allocation.pages[0], torch.zeros_like(bench.pattern(ours, 0)))
    assert bench.wrong_page(allocation, ours, 2).endswith("zeros")


def test_names_share_no_page():
    pages = {tuple(tokens_of(name, 3)[i : i + PAGE]) for name in "abcdef" for i in (0, PAGE, 2 * PAGE)}
    assert len(pages) == 18
