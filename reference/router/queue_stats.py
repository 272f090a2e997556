"""What the queue tells of itself: how fast it moves, how long requests waited, who was refused."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

REFUSALS = ("queue_full", "queue_timeout", "deadline_passed", "deadline_unreachable", "no_worker", "aborted")
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Pace:
    """How fast the waiting requests of one lane are served: the mean seconds of a step while somebody waited.

    A mean that forgets with each step, and knows nothing until it has seen some. Times are the caller's clock.
    """

    _KNOWN = 8  # steps after which it says anything: a refusal on a guess would be worse than a wait
    _SHARE = 0.1  # of the newest step

    def __init__(self) -> None:
        self._mean = 0.0
        self._steps = 0
        self._last: float | None = None

    def begin(self, now: float) -> None:
        """Somebody waits."""
        if self._last is None:
            self._last = now

    def step(self, now: float, *, more: bool) -> None:
        """Somebody was served; ``more`` wait."""
        if self._last is not None:
            seconds = now - self._last
            self._steps += 1
            share = max(self._SHARE, 1.0 / self._steps)
            self._mean += share * (seconds - self._mean)
        self._last = now if more else None

    def pause(self) -> None:
        """Nobody waits any more."""
        self._last = None

    def until_turn(self, ahead: int) -> float:
        """Return the seconds until ``ahead`` requests have been served; 0 while that is not known."""
        return self._mean * ahead if self._steps >= self._KNOWN else 0.0


class QueueStats:
    """Plain counters, made into metrics when asked. Labels are bands and kinds of refusal: clients cannot add any."""

    def __init__(self, bands: Sequence[str]) -> None:
        self.bands = tuple(bands)
        self.refusals = dict.fromkeys(REFUSALS, 0)
        self.unknown_bands = 0
        self._waits = [[0.0] * (len(_BUCKETS) + 2) for _ in bands]  # by band: the buckets' counts, then the sum

    def waited(self, band: int, seconds: float) -> None:
        """A request was let in after a wait."""
        row = self._waits[band]
        row[bisect_left(_BUCKETS, seconds)] += 1
        row[-1] += seconds

    def refused(self, kind: str) -> None:
        """A request was refused."""
        self.refusals[kind] += 1

    def collect(self, depths: Sequence[int]) -> Iterator[Metric]:
        """Return the metrics; ``depths`` by band."""
        depth = GaugeMetricFamily("router_queue_depth", "Requests waiting by band", labels=["band"])
        waits = HistogramMetricFamily("router_queue_seconds", "Waits of those that had to, by band", labels=["band"])
        for name, waiting, row in zip(self.bands, depths, self._waits, strict=True):
            depth.add_metric([name], waiting)
            total, buckets = 0.0, []
            for bound, count in zip([*map(str, _BUCKETS), "+Inf"], row[:-1], strict=True):
                total += count
                buckets.append((bound, total))
            waits.add_metric([name], buckets, row[-1])
        refusals = CounterMetricFamily("router_queue_refusals", "Requests not let in, by reason", labels=["reason"])
        for kind, count in self.refusals.items():
            refusals.add_metric([kind], count)
        yield from (depth, waits, refusals)
        yield CounterMetricFamily("router_unknown_bands", "Priorities that do not exist", value=self.unknown_bands)
