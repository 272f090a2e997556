"""The guard pages of KER-018: forked calls end although the process before them has a pool of threads."""

import pytest
import torch

from gaugeblock.conformance.kernels import guard_pages
from gaugeblock.fixtures.targets.kernels import load_kernels
from gaugeblock.kernels.contract import load_contracts
from gaugeblock.kernels.runtime import INTERPRETED


@pytest.mark.skipif(not INTERPRETED, reason="on a GPU the calls run under compute-sanitizer")
def test_a_forked_call_does_not_wait_for_threads_of_its_parent(monkeypatch):
    monkeypatch.setattr(guard_pages, "CHILD_TIMEOUT", 30.0)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        torch.ones(2**20).exp().sum()  # starts the pool
        op = load_contracts()["int8_linear"]
        case = op.make(3, 1008, torch.float32, 0, columns=264)  # its oracle is large enough for several threads
        assert not list(guard_pages.touched_outside(load_kernels(None), op, [case]))
    finally:
        torch.set_num_threads(threads)
