"""Prometheus metrics of the lanes. Labels are lanes, priorities and reasons: sets that clients cannot grow."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterator, Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gaugeblock.reference.hybrid.lanes import Condition, LaneState
from gaugeblock.reference.router.breaker import State
from gaugeblock.reference.router.rules import BANDS

PREFIX = "gaugeblock_lane_"
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
STATES = {State.CLOSED: 0, State.HALF_OPEN: 1, State.OPEN: 2}
CONDITIONS = {Condition.SERVES: 0, Condition.RESTARTS: 1, Condition.DOWN: 2}


class LaneMetrics(Collector):
    """What a front counts, and a look at its lanes whenever it is scraped; all in ``registry``."""

    def __init__(self, states: Sequence[LaneState], waiting: Callable[[], Tally[str]]) -> None:
        self.registry = CollectorRegistry()
        self._states, self._waiting = states, waiting

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(PREFIX + name, text, labels, registry=self.registry)

        def histogram(name: str, text: str) -> Histogram:
            return Histogram(PREFIX + name, text, ["lane"], buckets=SECONDS, registry=self.registry)

        self.first_token = histogram("time_to_first_token_seconds", "From arrival to the first token, by its lane")
        self.latency = histogram("request_seconds", "From arrival to the end of a whole answer, by the last lane")
        self.requests = counter("requests", "Requests that began in a lane, by their end there", "lane", "end")
        self.degraded = counter("degraded", "Requests sent to a lower kind of lane, by reason", "lane", "reason")
        self.continued = counter("continued", "Answers that another lane went on with after a fault", "lane")
        self.crashes = counter("crashes", "Deaths of a lane's engine, by what it died of", "lane", "error")
        self.refused = counter("refused", "Requests that no lane served, by reason", "reason")
        for state in states:  # a series that is there from the start can be alerted on
            for metric in (self.first_token, self.latency, self.continued):
                metric.labels(state.lane.name)
        self.registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Called by the exposition."""
        breaker = GaugeMetricFamily(PREFIX + "breaker_state", "0 closed, 1 half-open, 2 open", labels=["lane"])
        condition = GaugeMetricFamily(
            PREFIX + "condition", "0 serves, 1 has died and will be restarted, 2 down for good", labels=["lane"]
        )
        running = GaugeMetricFamily(PREFIX + "running_requests", "Requests in the lane", labels=["lane"])
        for state in self._states:
            breaker.add_metric([state.lane.name], STATES[state.breaker.state])
            condition.add_metric([state.lane.name], CONDITIONS[state.condition])
            running.add_metric([state.lane.name], state.running)
        yield breaker
        yield condition
        yield running
        waiting = GaugeMetricFamily(PREFIX + "waiting_requests", "Requests that wait for a lane", labels=["priority"])
        counts = self._waiting()
        for priority in BANDS:
            waiting.add_metric([priority], counts[priority])
        yield waiting
