"""RTR-084."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.conformance.router.queues import Crowd, Turnstile
from gaugeblock.fixtures.errors import TargetFault

TIMEOUT, BOUND = 0.5, 5.0
SAYS = (408, 429, 503, 504)


@check(
    "RTR-084",
    feature="deadline",
    bound="an error within 5 s for a time-out of 0.5 s, 408, 429, 503 or 504; exactly 0 arrivals at the worker",
    sources=(
        "https://github.com/llm-d/llm-d-router/pull/2123",
        "https://github.com/inference-sim/inference-sim/issues/1193",
    ),
)
def test_rtr_084(router_lab: LabFactory) -> None:
    """A request whose time is over leaves the queue with an error, and no worker ever sees it.

    The time-out was looked at on arrival alone: the client had long gone when its request was sent. Look at what
    happens to a request in the queue when its time is over, and at whether the worker is spared.
    """
    lab = router_lab(needs=("queue", "deadline"), workers=1, max_concurrent=1)
    gates = Turnstile(lab, 4)
    with Crowd(lab) as crowd:
        crowd.send("first")
        gates.await_arrivals(1)
        crowd.enqueue("hurried", timeout=TIMEOUT)
        crowd.enqueue("patient", timeout=100 * TIMEOUT)
        crowd.send("too late already", timeout=0.0)
        for name in ("hurried", "too late already"):
            _check(crowd, name)
        gates.let(0)
        gates.let(1)
        order = crowd.order(gates)
        assert order == ["first", "patient"], f"a request whose time was over was sent to the worker: {order}"
        statuses = crowd.statuses("first", "patient")
        assert set(statuses.values()) == {200}, f"requests with time enough got {statuses}"


def _check(crowd: Crowd, name: str) -> None:
    try:
        reply = crowd.sent[name].reply(BOUND)
    except TargetFault as fault:
        raise TargetFault(f"a request ({name}) whose time was over was left in the queue: {fault}") from None
    assert reply.status in SAYS, f"a request ({name}) whose time was over got {reply.shown}"
