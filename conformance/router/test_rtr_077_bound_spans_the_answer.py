"""RTR-077."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.conformance.router.queues import Crowd, Turnstile

LIMIT, REQUESTS = 2, 10


@check(
    "RTR-077",
    feature="queue",
    bound="exact: at no arrival are more than 2 of 10 streams under way, as the 3 workers count, and all are answered",
    sources=(
        "https://github.com/smg-project/smg/pull/2240",
        "https://github.com/palantir/dialogue/issues/453",
    ),
)
def test_rtr_077(router_lab: LabFactory) -> None:
    """The bound of requests in flight holds until the last byte of a stream.

    A place was free again as soon as an answer began, so long streams piled up at the workers without any bound. Look
    at what ends a request's place: the head of the answer or its end.
    """
    lab = router_lab(needs=("queue",), max_concurrent=LIMIT)
    gates = Turnstile(lab, REQUESTS, streamed=True)
    with Crowd(lab) as crowd:
        for number in range(REQUESTS):
            crowd.send(str(number), stream=True)
        for number in range(REQUESTS):
            gates.await_arrivals(min(number + LIMIT, REQUESTS))
            crowd.settle()
            gates.let(number)
        statuses = crowd.statuses()
        assert gates.most <= LIMIT, f"{gates.most} streams were under way at once where {LIMIT} may be"
        assert set(statuses.values()) == {200}, f"some of {REQUESTS} requests were lost in the queue: {statuses}"
