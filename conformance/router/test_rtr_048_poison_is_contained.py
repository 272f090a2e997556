"""RTR-048."""

from __future__ import annotations

from collections.abc import Callable

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.fixtures.workers.script import HEALTHY, RESET_AT_ONCE, Answer, Arrival
from gaugeblock.fixtures.workers.worker import ScriptedWorker

WORKERS, POISON = 6, "gaugeblock-poison"


@check(
    "RTR-048",
    feature="retries",
    bound="exact: at least one of 6 workers outlives a request that kills whoever gets it; the next ones are served",
    sources=("https://github.com/NVIDIA-NeMo/RL/issues/3613",),
)
def test_rtr_048(router_lab: LabFactory) -> None:
    """A request that kills its worker does not take down the fleet.

    A prompt that crashes the engine was tried on one worker after the other until none was left. Look at the cap on
    attempts: it must be smaller than the fleet, or the request must be set aside after a few deaths.
    """
    lab = router_lab(needs=("retries",), workers=WORKERS)
    for worker in lab.workers:
        worker.always(_dying(worker))
    sent = lab.send(POISON)
    reached = sorted({arrival.worker for arrival in sent.arrivals})
    assert sent.reply.status >= 500, f"no worker answered, yet the client got {sent.reply.shown}"
    assert len(reached) < WORKERS, f"one request killed all {WORKERS} workers, one after the other: {reached}"
    after = [lab.send(f"request {number}").reply for number in range(2 * WORKERS)]
    failed = [reply.shown for reply in after if reply.status != 200]
    assert not failed, (
        f"{len(failed)} of {2 * WORKERS} requests failed after one had killed {len(reached)} of {WORKERS}: {failed[0]}"
    )


def _dying(worker: ScriptedWorker) -> Callable[[Arrival], Answer]:
    def answer(arrival: Arrival) -> Answer:
        if POISON.encode() not in arrival.body:
            return HEALTHY
        worker.crash()
        return RESET_AT_ONCE

    return answer
