"""RTR-008."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.fixtures.errors import TargetFault
from gaugeblock.fixtures.workers.script import Answer

REQUESTS, PATIENCE = 9, 5.0


@check(
    "RTR-008",
    feature="proxy",
    bound="requests of the other workers end within 5 s while one holds its own: each takes milliseconds",
    sources=("https://github.com/vllm-project/production-stack/issues/749",),
)
def test_rtr_008(router_lab: LabFactory) -> None:
    """One wedged worker blocks nobody else.

    A worker that accepts requests and answers none held up requests of healthy workers. Look for a lock or a
    connection pool shared by all workers, and for health checks done one after the other.
    """
    lab = router_lab()
    wedged, gate = lab.workers[0], lab.gate()
    wedged.always(Answer(hold=gate))
    done: list[int] = []

    def one(number: int) -> None:
        done.append(lab.send(f"request {number}").reply.status)
        lab.loop.notify()

    with ThreadPoolExecutor(REQUESTS) as pool:
        futures = [pool.submit(one, number) for number in range(REQUESTS)]
        try:
            lab.loop.wait_for(
                lambda: len(lab.arrivals()) >= REQUESTS and len(done) >= REQUESTS - wedged.in_flight,
                PATIENCE,
                lambda: f"requests of healthy workers, blocked by a wedged one: {len(done)} answered, {lab.counts()}",
            )
        finally:
            gate.open()
        for future in futures:
            future.result()
    if done != [200] * REQUESTS:
        raise TargetFault(f"requests failed beside a wedged worker that recovered: statuses {done}")
