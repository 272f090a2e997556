"""Prometheus metrics of the engine, in a registry of their own."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gaugeblock.reference.engine.http.answers import Answer
from gaugeblock.reference.engine.http.protocol import EngineLike

PREFIX = "gaugeblock_engine_"
GAUGES = {
    "running_requests": ("running", "Sequences in the running batch"),
    "queued_requests": ("queued", "Sequences that wait"),
    "kv_total_tokens": ("total_tokens", "Capacity of the KV pool in tokens"),
    "kv_free_tokens": ("free_tokens", "KV slots that hold nothing"),
    "kv_cached_tokens": ("cached_tokens", "KV slots held by the prefix index"),
    "kv_host_tokens": ("host_tokens", "KV slots held by the host tier"),
    "kv_disk_tokens": ("disk_tokens", "KV slots held by the disk tier"),
    "kv_disk_degraded": ("disk_degraded", "1 while the disk tier stands aside after an error"),
}
COUNTERS = {
    "prompt_tokens": ("prompt_tokens_total", "Prompt tokens of admitted sequences"),
    "cached_prompt_tokens": ("cached_prompt_tokens_total", "Prompt tokens found in the prefix index"),
    "generation_tokens": ("generation_tokens_total", "Tokens generated"),
    "aborted_requests": ("aborted_total", "Sequences ended by an abort"),
    "scheduler_steps": ("steps_total", "Steps of the scheduler"),
    "retracted_requests": ("retracted_total", "Sequences sent back to the queue for want of pages"),
    "kv_evicted_tokens": ("evicted_tokens_total", "KV slots evicted from the device"),
    "kv_promoted_tokens": ("promoted_tokens_total", "KV slots brought back to the device"),
    "kv_disk_stored_tokens": ("disk_stored_tokens_total", "KV slots written to the disk tier"),
    "kv_disk_loaded_tokens": ("disk_loaded_tokens_total", "KV slots read from the disk tier when they were needed"),
    "kv_disk_skipped_tokens": ("disk_skipped_tokens_total", "KV slots that the disk tier did not take"),
    "kv_disk_failures": ("disk_failures_total", "Reads and writes that the disk refused"),
    "kv_disk_damaged_pages": ("disk_damaged_pages_total", "Page files that were not what they should be"),
    "kv_prefetched_tokens": ("prefetched_tokens_total", "KV slots brought from disk to host ahead of need"),
    "device_faults": ("device_faults_total", "Steps that the second device of a placement did not finish"),
    "kv_lost_tokens": ("lost_tokens_total", "KV slots that the tiers below the device had no room for"),
}
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class StatsCollector(Collector):
    """Reads the engine's counters when scraped."""

    def __init__(self, engine: EngineLike) -> None:
        self.engine = engine

    def collect(self) -> Iterator[Metric]:
        """Yield one family a number of ``EngineStats``."""
        stats = self.engine.stats()
        for name, (field, text) in GAUGES.items():
            yield GaugeMetricFamily(PREFIX + name, text, value=getattr(stats, field))
        for name, (field, text) in COUNTERS.items():
            yield CounterMetricFamily(PREFIX + name, text, value=getattr(stats, field))


class Metrics:
    """What the front itself measures, beside the engine's counters."""

    def __init__(self, engine: EngineLike) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(StatsCollector(engine))
        name = PREFIX + "time_to_first_token_seconds"
        self.first_token = Histogram(
            name, "From submission to the first token", buckets=SECONDS, registry=self.registry
        )
        name = PREFIX + "request_seconds"
        self.latency = Histogram(name, "From submission to the end", buckets=SECONDS, registry=self.registry)
        name = PREFIX + "requests"
        self.finished = Counter(name, "Sequences by the reason they ended", ["finish"], registry=self.registry)
        name = PREFIX + "http_responses"
        self.responses = Counter(name, "Answers by endpoint and status", ["endpoint", "status"], registry=self.registry)

    def observe(self, answer: Answer) -> None:
        """Count one sequence that has ended; without a finish its client left."""
        self.finished.labels("disconnect" if answer.finish is None else answer.finish.type).inc()
        if answer.first_token is not None:
            self.first_token.observe(answer.first_token)
        if answer.latency is not None:
            self.latency.observe(answer.latency)

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)


class CountResponses:
    """Middleware: counts answers by the endpoint that gave them; an unknown path adds no label value."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on."""

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                endpoint = getattr(scope.get("endpoint"), "__name__", "none")
                self.metrics.responses.labels(endpoint, str(message["status"])).inc()
            await send(message)

        await self.app(scope, receive, counted if scope["type"] == "http" else send)
