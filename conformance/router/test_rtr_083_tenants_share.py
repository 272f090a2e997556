"""RTR-083."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.conformance.router.queues import Crowd, Turnstile

GREEDY, MODEST = 12, 4


@check(
    "RTR-083",
    feature="fairness",
    bound="of the first 8 turns the modest tenant gets 3 to 5; in order of arrival it would get none",
    sources=(
        "https://github.com/kubernetes-sigs/gateway-api-inference-extension/issues/1797",
        "https://github.com/llm-d/llm-d-router/issues/1182",
        "https://arxiv.org/abs/2401.00588",
    ),
)
def test_rtr_083(router_lab: LabFactory) -> None:
    """A tenant that sends a lot takes no more than its share of the queue.

    One tenant's burst held up all others until it was over. Look at whether the queue knows tenants, and whose turn it
    is after each request.
    """
    lab = router_lab(needs=("queue", "fairness"), workers=1, max_concurrent=1)
    gates = Turnstile(lab, 1 + GREEDY + MODEST)
    with Crowd(lab) as crowd:
        crowd.send("first", tenant="greedy")
        gates.await_arrivals(1)
        for number in range(GREEDY):
            crowd.enqueue(f"greedy {number}", tenant="greedy")
        for number in range(MODEST):
            crowd.enqueue(f"modest {number}", tenant="modest")
        for number in range(1 + GREEDY + MODEST):
            gates.let(number)
        order = crowd.order(gates)[1:]
        statuses = crowd.statuses()
    assert set(statuses.values()) == {200}, f"some got no answer: {statuses}"
    share = sum(name.startswith("modest") for name in order[: 2 * MODEST])
    assert abs(share - MODEST) <= 1, f"of the first {2 * MODEST} turns the modest tenant got {share}: {order}"
    for tenant in ("greedy", "modest"):
        mine = [name for name in order if name.startswith(tenant)]
        sent = [name for name in crowd.sent if name.startswith(tenant)]
        assert mine == sent, f"requests of one tenant were served out of order: {mine}"
