"""A placement on a real GPU: the host's answers, counted copies, and memory that is really taken and given back."""

import gc
import random

import numpy as np
import pytest
import torch

from gaugeblock.fixtures.targets.inprocess import load_inprocess, mixed_prompt
from gaugeblock.fixtures.targets.inprocess_placed import PlacedTarget, expected_moves, held_bytes, watched
from gaugeblock.reference.hybrid.placement import DEVICE, HOST

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

# fp32 sums of at most a few hundred terms in another order; the logits reach about 20. TF32 is off by default.
ATOL = 1e-4
ROUNDING = 512  # bytes to which torch's allocator rounds each tensor


@pytest.fixture(scope="module")
def placed():
    return PlacedTarget(load_inprocess())


@pytest.fixture
def device():
    from gaugeblock.reference.hybrid.devices import CudaDevice

    return CudaDevice()


def placements(names):
    draws = [random.Random(seed) for seed in range(3)]
    return [dict.fromkeys(names, DEVICE), *({name: draw.choice((HOST, DEVICE)) for name in names} for draw in draws)]


@pytest.mark.parametrize("number", range(4))
def test_answers_are_the_hosts(number, placed, device):
    fields = {"page_size": 16, "max_total_tokens": 128, "host_kv_tokens": 256}
    prompts = [mixed_prompt(name, 64) for name in ("one", "two", "three", "one", "two")]  # they leave and come back
    host = placed.target.lab(**fields)
    lab = placed.lab(placements(placed.operators)[number], device, **fields)
    for i, prompt in enumerate(prompts):
        for one in (host, lab):
            one.add(str(i), prompt, new=6, logprobs_from=len(prompt) - 1)
            one.run([30, 20])
        want, got = host.answers[str(i)], lab.answers[str(i)]
        assert (got.ids, got.hit) == (want.ids, want.hit)
        tops = [
            np.array([v for e in a.events for v, _ in sorted(e.top_logprobs, key=lambda t: t[1])]) for a in (want, got)
        ]
        np.testing.assert_allclose(tops[1], tops[0], atol=ATOL, rtol=0)
    assert lab.stats().promoted_tokens_total > 0
    lab.close()


@pytest.mark.parametrize("number", range(4))
def test_operators_run_where_they_are_placed_and_copies_are_counted(number, placed, device):
    placement = placements(placed.operators)[number]
    lab = placed.lab(placement, device)
    lab.add("one", mixed_prompt("gpu", 40), new=3)
    with watched(lab) as witness:
        while lab.scheduler.has_work:
            arrived, left = device.ledger.arrived, device.ledger.left
            before = (arrived.copies, arrived.nbytes, left.copies, left.nbytes)
            lab.step(30)
            runs, batch = witness.take()
            assert [run.operator for run in runs] == list(placed.operators)
            assert all(run.places == {placement[run.operator]} for run in runs)
            moves = expected_moves(placed.target.config, placement, batch)
            after = (arrived.copies, arrived.nbytes, left.copies, left.nbytes)
            wanted = (len(moves.arrived), sum(moves.arrived), len(moves.left), sum(moves.left))
            assert tuple(b - a for a, b in zip(before, after, strict=True)) == wanted
    lab.close()


def test_the_ledger_is_what_the_allocator_says(placed, device):
    gc.collect()
    free = torch.cuda.memory_allocated()
    lab = placed.lab(placements(placed.operators)[1], device)
    taken = torch.cuda.memory_allocated() - free
    assert held_bytes(lab) == device.ledger.total
    assert device.ledger.total <= taken <= device.ledger.total + ROUNDING * 100
    lab.close()
    gc.collect()
    assert torch.cuda.memory_allocated() == free
    assert device.ledger.held == {}


def test_a_copy_to_the_device_does_not_see_what_the_source_becomes(device):
    source = torch.ones(1 << 20)
    copies = []
    for number in range(50):
        source.fill_(number)
        copies.append(device.put(source))  # returns while the copy is under way
    assert [copy.unique().tolist() for copy in copies] == [[float(number)] for number in range(50)]


def test_a_copy_to_the_host_is_complete_when_it_returns(device):
    a = device.put(torch.full((4096, 4096), 1.0))
    for _ in range(5):
        out = a
        for _ in range(20):
            out = (out @ a) / 4096  # the queue is long when the copy is asked for
        assert device.fetch(out)[::512, ::512].unique().tolist() == [1.0]


def test_a_failing_device_ends_what_runs_and_serves_the_next(placed, device, monkeypatch):
    lab = placed.lab(placements(placed.operators)[1], device)
    prompt = mixed_prompt("fault", 40)
    before = lab.ask("before", prompt, new=4).ids
    with monkeypatch.context() as patch:
        patch.setattr(device, "_put", lambda tensor: torch.empty(1 << 60, device="cuda"))
        ended = lab.ask("during", prompt, new=4).finish
    assert (ended.type, ended.status) == ("abort", 503)
    assert "OutOfMemoryError" in ended.message
    assert "'cuda'" in ended.message
    assert lab.ask("after", prompt, new=4).ids == before
    assert lab.answers["after"].hit == 0
