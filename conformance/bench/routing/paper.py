"""What decisions would cost in a fleet too large to simulate: the real policy code, asked with that many workers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from random import Random

from gaugeblock.conformance.bench.routing.report import Paper
from gaugeblock.conformance.bench.routing.simulate import view_of
from gaugeblock.fixtures.targets.router_policies import OwnPolicies
from gaugeblock.fixtures.traces import TraceRequest
from gaugeblock.reference.router.policies.base import Policy, WorkerView

SAMPLE = 3000
"""Requests of a trace that are decided; the first half only teaches the policy."""
MOST_LOAD = 8  # requests in flight at a worker


def on_paper(trace: Sequence[TraceRequest], policies: Sequence[str], workers: int, requests_per_hour: float) -> Paper:
    """Measure a decision of each policy with its record, for ``workers`` workers."""
    own = OwnPolicies()
    return Paper(
        workers, requests_per_hour, {name: 1e6 * _seconds(own.make(name), trace[:SAMPLE], workers) for name in policies}
    )


def _seconds(policy: Policy, trace: Sequence[TraceRequest], workers: int) -> float:
    rng = Random(1)
    names = [f"http://10.0.{number >> 8}.{number & 255}:30000" for number in range(workers)]
    spent, counted = 0.0, 0
    for number, request in enumerate(trace):
        views = [WorkerView(name, int(rng.random() * MOST_LOAD)) for name in names]
        view = view_of(request)
        began = time.thread_time()
        policy.record(view, policy.decide(view, views, rng, 0.0), 0.0)
        if number >= len(trace) // 2:
            spent, counted = spent + time.thread_time() - began, counted + 1
    return spent / counted
