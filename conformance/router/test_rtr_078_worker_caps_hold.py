"""RTR-078."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.conformance.router.queues import Crowd, Turnstile

CAP, REQUESTS = 2, 12


@check(
    "RTR-078",
    feature="admission-cap",
    bound="exact: no worker ever counts more than 2 of 12 requests at once, each counts 2, and all are answered",
    sources=(
        "https://github.com/palantir/dialogue/pull/897",
        "https://github.com/sgl-project/sglang/issues/32195",
    ),
)
def test_rtr_078(router_lab: LabFactory) -> None:
    """No worker gets more requests at a time than it may, and each gets as many.

    One too many slips in when the bound is compared the wrong way round, or when a place is free between the decision
    and the sending. Look at who counts, and whether the count goes up in the same step.
    """
    lab = router_lab(needs=("admission-cap",), worker_cap=CAP)
    gates = Turnstile(lab, REQUESTS)
    room = CAP * len(lab.workers)
    with Crowd(lab) as crowd:
        for number in range(REQUESTS):
            crowd.send(str(number))
        for number in range(REQUESTS):
            gates.await_arrivals(min(number + room, REQUESTS))
            crowd.settle()
            gates.let(number)
        statuses = crowd.statuses()
    assert set(statuses.values()) == {200}, f"some of {REQUESTS} requests were lost before a full worker: {statuses}"
    over = {name: most for name, most in gates.most_at.items() if most > CAP}
    assert not over, f"workers that may have {CAP} requests at a time had more: {over}"
    assert set(gates.most_at.values()) == {CAP}, (
        f"with {REQUESTS} requests waiting, workers had at most {gates.most_at}"
    )
