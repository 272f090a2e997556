"""Times on a GPU: CUDA events, inputs rotated through more than five times the L2 cache, medians with spread."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

Call = Callable[[], Any]
HEAD_START = 40_000_000  # cycles that the GPU idles while the CPU queues the calls, about 20 ms


@dataclass(frozen=True)
class Times:
    """Microseconds a call: median, and the 10th and 90th percentile as the spread."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, microseconds: Sequence[float]) -> Times:
        """Summarise measured calls."""
        tenths = statistics.quantiles(microseconds, n=10)
        return cls(statistics.median(microseconds), tenths[0], tenths[-1])


def rotation(bytes_each: int) -> int:
    """Return how many input sets exceed five L2 caches together; at least two."""
    return max(2, -(-5 * torch.cuda.get_device_properties(0).L2_cache_size // bytes_each) + 1)


def time_launches(calls: Sequence[Call], repeats: int = 60) -> Times:
    """Time single launches, queued ahead of the GPU so that the CPU's own time stays out."""
    for call in calls[:2]:
        call()
    torch.cuda.synchronize()
    marks = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(repeats)]
    torch.cuda._sleep(HEAD_START)
    for index, (begin, end) in enumerate(marks):
        begin.record()
        calls[index % len(calls)]()
        end.record()
    torch.cuda.synchronize()
    return Times.of([1000 * begin.elapsed_time(end) for begin, end in marks])


def time_graph(calls: Sequence[Call], replays: int = 12, captures: int = 3) -> Times:
    """Time all calls captured one after the other in one CUDA graph, as an engine replays a decode step.

    Several captures: where a graph's memory happens to lie changes a kernel of a few microseconds by 10%.
    """
    return Times.of([time for _ in range(captures) for time in _graph_times(calls, replays)])


def _graph_times(calls: Sequence[Call], replays: int) -> list[float]:
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for call in calls[:3]:
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in calls:
            call()
    graph.replay()
    torch.cuda.synchronize()
    times = []
    for _ in range(replays):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(1000 * begin.elapsed_time(end) / len(calls))
    return times


def copy_ceiling() -> float:
    """Return the card's copy bandwidth in bytes a second, read plus written, from copies of 1 GiB."""
    pairs = [
        (torch.empty(2**30, dtype=torch.uint8, device="cuda"), torch.ones(2**30, dtype=torch.uint8, device="cuda"))
    ]
    pairs.append((torch.empty_like(pairs[0][0]), torch.ones_like(pairs[0][1])))
    times = time_launches([lambda to=to, source=source: to.copy_(source) for to, source in pairs], 40)
    return 2 * 2**30 / (times.median * 1e-6)
