"""What of the timing needs no GPU: how long a graph is, and what a capture that fails leaves behind."""

from types import SimpleNamespace

import pytest

from gaugeblock.conformance.bench import timing
from gaugeblock.conformance.bench.workloads import WORKLOADS


@pytest.mark.parametrize(
    ("sets", "microseconds", "times"),
    [
        (1, 0.0, 64),
        (64, 5.0, 1),
        (65, 5.0, 1),
        (10, 40.0, 7),  # 64 launches at least
        (2, 500.0, 20),  # decode attention: 40 launches, 20 ms
        (2, 13_000.0, 1),  # its composition: each input set once
    ],
)
def test_a_graph_has_64_launches_or_takes_long_enough(sets, microseconds, times):
    assert timing.repeats(sets, microseconds) == times


def test_decode_shapes_are_timed_in_a_graph():
    in_graphs = {w.op for w in WORKLOADS if w.mode == "graph"}
    assert {"decode_attention", "sampling", "int8_linear", "ln_linear", "add_rmsnorm", "silu_and_mul"} <= in_graphs
    assert "extend_attention" not in in_graphs


class FakeCuda(SimpleNamespace):
    """Captures as PyTorch 2.11 does: when the end of a capture raises, its stream stays the current one."""

    def __init__(self, ends=True):
        super().__init__(stream="the caller's", ends=ends, CUDAGraph=object)

    def graph_pool_handle(self):
        return (0, 7)

    def current_stream(self):
        return self.stream

    def set_stream(self, stream):
        self.stream = stream

    def current_device(self):
        return 3

    def graph(self, graph, pool):
        assert pool == (0, 7)
        return self

    def __enter__(self):
        self.stream = "the capture's"

    def __exit__(self, *_):
        if not self.ends:
            raise RuntimeError("capture invalidated")
        self.stream = "the caller's"


@pytest.fixture
def ended(monkeypatch):
    """What was done by hand to the pool of a capture."""
    found = []
    for name in ("_cuda_endAllocateToPool", "_cuda_releasePool"):
        monkeypatch.setattr(timing._c, name, lambda *words, name=name: found.append((name, *words)), raising=False)
    return found


def refuse():
    raise RuntimeError("not permitted while capturing")


def test_a_capture_that_fails_leaves_stream_and_allocator_as_they_were(monkeypatch, ended):
    cuda = FakeCuda(ends=False)
    monkeypatch.setattr(timing, "_cuda", cuda)
    with pytest.raises(RuntimeError, match="invalidated"):
        timing.captured([refuse])
    assert cuda.stream == "the caller's"
    assert ended == [("_cuda_endAllocateToPool", 3, (0, 7)), ("_cuda_releasePool", 3, (0, 7))]


def test_a_call_that_refuses_a_capture_which_then_ends_is_what_is_told(monkeypatch):
    monkeypatch.setattr(timing, "_cuda", FakeCuda())
    monkeypatch.setattr(timing._c, "_cuda_endAllocateToPool", lambda *_: refuse(), raising=False)
    with pytest.raises(RuntimeError, match="while capturing"):
        timing.captured([refuse])


def test_a_capture_that_succeeds_ends_by_itself(monkeypatch, ended):
    monkeypatch.setattr(timing, "_cuda", FakeCuda())
    calls = []
    timing.captured([lambda: calls.append(1)] * 3)
    assert (calls, ended) == ([1, 1, 1], [])
