"""RTR-081."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.conformance.router.queues import Crowd, Turnstile

LOW, HIGH = 4, 2


@check(
    "RTR-081",
    feature="priority",
    bound="exact: 2 urgent requests that come last are served before 4 patient ones, each kind in order of arrival",
    sources=(
        "https://github.com/kubernetes-sigs/gateway-api-inference-extension/pull/2438",
        "https://github.com/llm-d/llm-d-router/issues/1119",
    ),
)
def test_rtr_081(router_lab: LabFactory) -> None:
    """An urgent request overtakes patient ones that wait.

    Urgent requests waited behind batch work. Look at whether the priority is read at all, which end of the scale is
    the urgent one, and whether anything is ordered by it.
    """
    lab = router_lab(needs=("queue", "priority"), workers=1, max_concurrent=1, priorities=True)
    gates = Turnstile(lab, 1 + LOW + HIGH)
    with Crowd(lab) as crowd:
        crowd.send("first", band="low")
        gates.await_arrivals(1)
        low = [f"low {number}" for number in range(LOW)]
        high = [f"high {number}" for number in range(HIGH)]
        for name in low:
            crowd.enqueue(name, band="low")
        for name in high:
            crowd.enqueue(name, band="high")
        for number in range(1 + LOW + HIGH):
            gates.let(number)
        order = crowd.order(gates)[1:]
        statuses = crowd.statuses()
    assert set(statuses.values()) == {200}, f"some got no answer: {statuses}"
    assert sorted(order[:HIGH]) == high, f"urgent requests did not overtake patient ones; the worker got {order}"
    assert order == high + low, f"requests of one priority were served out of order: {order}"
