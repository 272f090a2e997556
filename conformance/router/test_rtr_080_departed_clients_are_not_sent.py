"""RTR-080."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.conformance.router.queues import Crowd, Turnstile

LEAVING = 4


@check(
    "RTR-080",
    feature="queue",
    bound="exact: none of 4 requests whose clients left the queue reaches the worker, and the one behind them does",
    sources=("https://github.com/dtzp555-max/ocp/pull/149",),
)
def test_rtr_080(router_lab: LabFactory) -> None:
    """A client that leaves while it waits is never sent to a worker.

    The worker computed answers for clients that had given up, while those that still waited got later. Look at whether
    a closed connection is seen while its request waits.
    """
    lab = router_lab(needs=("queue",), workers=1, max_concurrent=1)
    gates = Turnstile(lab, LEAVING + 2)
    with Crowd(lab) as crowd:
        crowd.send("first")
        gates.await_arrivals(1)
        for number in range(LEAVING):
            crowd.enqueue(f"leaves {number}")
        crowd.enqueue("stays")
        for number in range(LEAVING):
            crowd.sent[f"leaves {number}"].leave()
        crowd.settle()
        gates.let(0)
        gates.let(1)
        order = crowd.order(gates)
        assert order[1] == "stays", f"a request whose client had left the queue was sent to the worker: {order}"
        statuses = crowd.statuses("first", "stays")
        assert set(statuses.values()) == {200}, f"those that stayed got {statuses}"
