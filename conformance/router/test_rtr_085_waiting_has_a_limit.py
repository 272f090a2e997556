"""RTR-085."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.conformance.router.queues import Crowd, Turnstile
from gaugeblock.fixtures.errors import TargetFault

TIMEOUT, BOUND = 1.0, 6.0
SAYS = (408, 429, 503, 504)


@check(
    "RTR-085",
    feature="queue",
    bound="an error within 6 s where the queue's time-out is 1 s, 408, 429, 503 or 504; exactly 0 arrivals",
    sources=(
        "https://github.com/sgl-project/sglang/pull/11485",
        "https://github.com/llm-d/llm-d-router/pull/2123",
    ),
)
def test_rtr_085(router_lab: LabFactory) -> None:
    """A request that waits longer than the queue's time-out is told so, and is not sent afterwards.

    It waited until its client gave up, or was sent to the worker although its client had got an error. Look at whether
    the time-out is armed, and at what takes the request out of the queue.
    """
    lab = router_lab(needs=("queue",), workers=1, max_concurrent=1, queue_timeout=TIMEOUT)
    gates = Turnstile(lab, 3)
    with Crowd(lab) as crowd:
        crowd.send("first")
        gates.await_arrivals(1)
        crowd.enqueue("waits")
        try:
            reply = crowd.sent["waits"].reply(BOUND)
        except TargetFault as fault:
            raise TargetFault(f"a queue with a time-out of {TIMEOUT:g} s let a request wait longer: {fault}") from None
        assert reply.status in SAYS, f"after the queue's time-out a request got {reply.shown}"
        gates.let(0)
        crowd.send("next")
        gates.let(1)
        order = crowd.order(gates)
        assert order == ["first", "next"], f"a request that had been refused was sent to the worker: {order}"
        statuses = crowd.statuses("first", "next")
        assert set(statuses.values()) == {200}, f"the others got {statuses}"
