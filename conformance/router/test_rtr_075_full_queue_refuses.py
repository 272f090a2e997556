"""RTR-075."""

from __future__ import annotations

import time

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.conformance.router.queues import Crowd, Turnstile
from gaugeblock.fixtures.errors import TargetFault
from gaugeblock.fixtures.targets.pending import Pending

QUEUE, BEYOND, PROMPT = 2, 6, 3.0


@check(
    "RTR-075",
    feature="queue",
    bound="exact: with 1 in flight and 2 waiting, 6 more get 429 within 3 s, and 3 of the 9 ever reach the worker",
    sources=(
        "https://github.com/sgl-project/sglang/pull/11485",
        "https://www.rfc-editor.org/rfc/rfc6585#section-4",
    ),
)
def test_rtr_075(router_lab: LabFactory) -> None:
    """A full queue refuses at once, and what it refuses reaches no worker.

    The size of the queue did not bind: everything waited, until clients gave up or memory ended. Look at whether the
    size is compared with those that wait, and whether a refused request still takes a place.
    """
    lab = router_lab(needs=("queue",), workers=1, max_concurrent=1, queue_size=QUEUE)
    gates = Turnstile(lab, 1 + QUEUE + BEYOND)
    with Crowd(lab) as crowd:
        crowd.send("first")
        gates.await_arrivals(1)
        kept = [crowd.enqueue(f"waits {number}").mark for number in range(QUEUE)]
        refused = [crowd.send(f"too many {number}") for number in range(BEYOND)]
        end = time.monotonic() + PROMPT
        statuses = [_status(pending, end) for pending in refused]
        assert statuses == [429] * BEYOND, (
            f"{BEYOND} requests beyond a queue of {QUEUE} got {statuses} instead of 429 at once; 0 is no answer"
        )
        for number in range(1 + QUEUE):
            gates.let(number)
        rest = crowd.statuses("first", *(f"waits {number}" for number in range(QUEUE)))
        assert set(rest.values()) == {200}, f"those with a place in the queue got {rest}"
        reached = [name for name in crowd.order(gates) if name.startswith("too many")]
        assert not reached, f"{len(reached)} requests that were refused reached the worker: {reached}"
        assert all(lab.arrivals(mark) for mark in kept), "a request that waited was answered by nobody"


def _status(pending: Pending, end: float) -> int:
    """Return the status of a request that must be answered at once, 0 if it is not by ``end``."""
    try:
        return pending.reply(max(0.05, end - time.monotonic())).status
    except TargetFault:
        return 0
