"""Where many requests of one moment go, seen while none of them is answered."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from gaugeblock.fixtures.targets.router import RouterLab, Sent
from gaugeblock.fixtures.workers.script import Answer

PATIENCE = 8.0
"""Seconds until all of them are at a worker; it takes a fraction of one."""


def spread_of(lab: RouterLab, count: int, send: Callable[[], Sent]) -> dict[str, int]:
    """Send ``count`` requests at once, hold all of them at the workers, and return how many each worker has.

    Raises:
        TargetFault: they do not come.
        AssertionError: one was not answered with 200 afterwards.
    """
    gate = lab.gate()
    for worker in lab.workers:
        worker.requests.clear()
        worker.always(Answer(hold=gate))
    with ThreadPoolExecutor(count) as pool:
        futures = [pool.submit(send) for _ in range(count)]
        try:
            lab.loop.wait_for(
                lambda: len(lab.arrivals()) >= count,
                PATIENCE,
                lambda: f"{count} concurrent requests at the workers; {len(lab.arrivals())} came: {lab.counts()}",
            )
            counts = lab.counts()
        finally:
            gate.open()
        statuses = {future.result().reply.status for future in futures}
    assert statuses == {200}, f"some of {count} concurrent requests failed: {statuses}"
    return counts
