"""Prometheus metrics. Labels come from sets that clients cannot grow: routes, status classes, own workers, rules."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from gaugeblock.reference.router.proxy import Proxy
from gaugeblock.reference.router.registry import Registry
from gaugeblock.reference.router.warm import Warmer

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Metrics(Collector):
    """Plain counters on the hot path; the exposition is made when it is asked for."""

    def __init__(self, registry: Registry, proxy: Proxy, warmer: Warmer) -> None:
        self._registry, self._proxy, self._warmer = registry, proxy, warmer
        self._requests: dict[tuple[str, str], int] = {}
        self._seconds: dict[str, list[float]] = {}  # by route: the buckets' counts, then the sum
        self._exposition = CollectorRegistry(auto_describe=False)
        self._exposition.register(self)

    def note(self, route: str, status: int, seconds: float) -> None:
        """Count a finished request. ``status`` 0: the client left before an answer began."""
        key = (route, f"{status // 100}xx" if status else "left")
        self._requests[key] = self._requests.get(key, 0) + 1
        row = self._seconds.get(route)
        if row is None:
            row = self._seconds[route] = [0.0] * (len(_BUCKETS) + 2)
        row[bisect_left(_BUCKETS, seconds)] += 1
        row[-1] += seconds

    def expose(self) -> bytes:
        """Return the text exposition."""
        return generate_latest(self._exposition)

    def collect(self) -> Iterator[Metric]:
        """Called by the exposition."""
        requests = CounterMetricFamily(
            "router_requests", "Requests by route and status class", labels=["route", "status"]
        )
        for (route, status), count in self._requests.items():
            requests.add_metric([route, status], count)
        yield requests
        yield self._histogram()
        yield CounterMetricFamily("router_retries", "Attempts after the first", value=self._proxy.retries)
        yield from self._routing()
        yield from self._workers()
        yield from self._cache()
        warm = CounterMetricFamily("router_warm_ups", "Warm-up requests by outcome", labels=["outcome"])
        for outcome, count in self._warmer.outcomes.items():
            warm.add_metric([outcome], count)
        yield warm
        if self._registry.limited:
            admission = self._proxy.entry.admission
            yield from admission.stats.collect(admission.depths())

    def _routing(self) -> Iterator[Metric]:
        routed = CounterMetricFamily(
            "router_routed_requests", "Requests by what decided their place", labels=["rule", "variant", "pool"]
        )
        for labels, count in self._proxy.routed.items():
            routed.add_metric(labels, count)
        shadows = CounterMetricFamily("router_shadows", "Copies by what became of them", labels=["outcome"])
        for outcome, count in self._proxy.shadows.counts.items():
            shadows.add_metric([outcome], count)
        yield from (routed, shadows)

    def _histogram(self) -> Metric:
        family = HistogramMetricFamily("router_request_seconds", "From request to last byte", labels=["route"])
        for route, row in self._seconds.items():
            total, buckets = 0.0, []
            for bound, count in zip([*map(str, _BUCKETS), "+Inf"], row[:-1], strict=True):
                total += count
                buckets.append((bound, total))
            family.add_metric([route], buckets, row[-1])
        return family

    def _cache(self) -> Iterator[Metric]:
        reports = self._proxy.cache
        for name, tokens, text in (
            ("router_prefix_predicted_tokens", reports.predicted, "Prompt tokens predicted to be cached, by worker"),
            ("router_prefix_cached_tokens", reports.cached, "Prompt tokens that the workers say were cached"),
        ):
            family = CounterMetricFamily(name, text, labels=["worker"])
            for worker, count in tokens.items():
                if worker in self._registry.workers:
                    family.add_metric([worker], count)
            yield family
        yield CounterMetricFamily("router_caches_lost", "Times that a cache was found gone", value=reports.lost)

    def _workers(self) -> Iterator[Metric]:
        in_flight = GaugeMetricFamily("router_worker_in_flight", "Requests in flight by worker", labels=["worker"])
        limit = GaugeMetricFamily("router_worker_limit", "Requests that it may have in flight now", labels=["worker"])
        available = GaugeMetricFamily("router_worker_available", "1 if it would get traffic now", labels=["worker"])
        attempts = CounterMetricFamily("router_attempts", "Ended attempts by outcome", labels=["worker", "outcome"])
        for worker in self._registry.workers.values():
            in_flight.add_metric([worker.id], worker.in_flight)
            available.add_metric([worker.id], float(worker.available()))
            if worker.most is not None:
                limit.add_metric([worker.id], worker.most)
            for outcome, count in worker.outcomes.items():
                attempts.add_metric([worker.id, str(outcome)], count)
        yield from (in_flight, limit, available, attempts)
