"""Times on a GPU: CUDA events, inputs rotated through more than five times the L2 cache, rounds with spread."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch

Call = Callable[[], Any]
Mode = Literal["launch", "graph"]

ROUNDS = 5
"""Everything that is compared takes turns this often, so that a drift of the clock hits all alike."""

LAUNCHES = 12  # timed launches a round
REPLAYS = 8  # timed replays of a graph a round; every round captures it anew
GRAPH_LAUNCHES = 64  # of a graph at least: a decode step has hundreds, and its first and last are not what counts
GRAPH_ENOUGH = 20_000.0  # µs: in a graph that takes this long they count nothing, be its launches fewer
HEAD_START = 40_000_000  # cycles that the GPU idles while the CPU queues the launches, about 20 ms
_cuda: Any = torch.cuda  # its classes carry no types
_c: Any = torch._C  # nor does what they call
L2_CACHES = 5  # the rotated inputs exceed so many of them together


@dataclass(frozen=True)
class Times:
    """Microseconds a call: the median, the 10th and the 90th percentile as the spread, the median of each round."""

    median: float
    low: float
    high: float
    rounds: tuple[float, ...]

    @classmethod
    def of(cls, rounds: Sequence[Sequence[float]]) -> Times:
        """Summarise the measured calls of each round."""
        samples = [sample for one in rounds for sample in one]
        tenths = statistics.quantiles(samples, n=10) if len(samples) > 1 else [samples[0]]
        return cls(statistics.median(samples), tenths[0], tenths[-1], tuple(statistics.median(one) for one in rounds))


class Timer(Protocol):
    """What measures: the GPU below, or made-up times in the kit's own tests."""

    card: str

    def samples(self, calls: Sequence[Call], mode: Mode) -> list[float]:
        """Return microseconds a call from one round over ``calls``, the same call on rotated inputs."""

    def rotation(self, bytes_each: int) -> int:
        """Return how many input sets of ``bytes_each`` exceed the caches."""

    def peak_bytes(self, call: Call) -> int:
        """Return the most memory that a call holds above what was allocated before it, its outputs included."""


class GpuTimer:
    """The current CUDA device."""

    def __init__(self) -> None:
        self.card = torch.cuda.get_device_name()

    def samples(self, calls: Sequence[Call], mode: Mode) -> list[float]:
        """Return microseconds a call: of single launches queued ahead, or of replays of one graph of all calls."""
        return _launches(calls) if mode == "launch" else _replays(calls)

    def rotation(self, bytes_each: int) -> int:
        """Return how many input sets exceed five L2 caches together; at least two."""
        cache: int = torch.cuda.get_device_properties(0).L2_cache_size
        return max(2, L2_CACHES * cache // max(bytes_each, 1) + 1)

    def peak_bytes(self, call: Call) -> int:
        """Return the allocator's peak during a call, less what was allocated before."""
        call()  # workspaces that stay are not the call's
        torch.cuda.synchronize()
        before: int = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        torch.cuda.synchronize()
        return int(torch.cuda.max_memory_allocated()) - before


def _launches(calls: Sequence[Call]) -> list[float]:
    """Time single launches, queued ahead of the GPU so that the CPU's own time stays out."""
    calls[0]()
    torch.cuda.synchronize()
    marks = [_events() for _ in range(LAUNCHES)]
    _cuda._sleep(HEAD_START)
    for index, (begin, end) in enumerate(marks):
        call = calls[index % len(calls)]
        begin.record()
        call()
        end.record()
    torch.cuda.synchronize()
    return [1000 * begin.elapsed_time(end) for begin, end in marks]


def _replays(calls: Sequence[Call]) -> list[float]:
    """Time all calls captured one after the other in one graph, in turns, as an engine replays a decode step.

    Where a graph's memory happens to lie changes a kernel of a few microseconds by 10%: each round captures anew.
    """
    stream, (begin, end) = _cuda.Stream(), _events()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for call in calls[:3]:
            call()
        begin.record()
        calls[0]()
        end.record()
    end.synchronize()
    torch.cuda.current_stream().wait_stream(stream)
    calls = [*calls] * repeats(len(calls), 1000 * begin.elapsed_time(end))
    graph = captured(calls)
    graph.replay()
    torch.cuda.synchronize()
    times = []
    for _ in range(REPLAYS):
        begin, end = _events()
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(1000 * begin.elapsed_time(end) / len(calls))
    return times


def repeats(sets: int, microseconds: float) -> int:
    """Return how often a graph goes through ``sets`` calls, each of which takes about so long."""
    launches = min(GRAPH_LAUNCHES, GRAPH_ENOUGH / max(microseconds, 1.0))
    return max(1, math.ceil(launches / sets))


def captured(calls: Sequence[Call]) -> Any:
    """Return a graph of the calls, one after the other.

    A capture that fails leaves no trace. By itself PyTorch stays on the capture's stream, and until pytorch#180395 its
    allocator takes the capture for one still under way, so that the next ``empty_cache`` raises.
    """
    graph, pool, stream = _cuda.CUDAGraph(), _cuda.graph_pool_handle(), _cuda.current_stream()
    try:
        with _cuda.graph(graph, pool=pool):
            for call in calls:
                call()
    except BaseException:
        _cuda.set_stream(stream)
        with suppress(RuntimeError, AttributeError):  # the capture did end; or a PyTorch that has no such call
            _c._cuda_endAllocateToPool(_cuda.current_device(), pool)
            _c._cuda_releasePool(_cuda.current_device(), pool)
        raise
    return graph


def _events() -> tuple[torch.cuda.Event, torch.cuda.Event]:
    return _cuda.Event(enable_timing=True), _cuda.Event(enable_timing=True)
