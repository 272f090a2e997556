"""RTR-076."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.conformance.router.queues import Crowd, Turnstile

LONGEST = 3600


@check(
    "RTR-076",
    feature="queue",
    level="extended",
    bound="Retry-After in whole seconds from 1 to 3600, and a reason in JSON",
    sources=(
        "https://www.rfc-editor.org/rfc/rfc6585#section-4",
        "https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3",
    ),
)
def test_rtr_076(router_lab: LabFactory) -> None:
    """A request that the queue refuses is told when to come back, and why it was refused.

    A 429 without Retry-After makes every client guess, and most of them guess zero. Look at who writes the answer: a
    layer before the router's own error bodies often does not.
    """
    lab = router_lab(needs=("queue",), workers=1, max_concurrent=1, queue_size=0)
    gates = Turnstile(lab, 2)
    with Crowd(lab) as crowd:
        crowd.send("first")
        gates.await_arrivals(1)
        reply = crowd.send("refused").reply()
        gates.let(0)
        assert reply.status == 429, f"with no place to wait a second request got {reply.shown}"
        wait = reply.headers.get("retry-after", "")
        assert wait.isdigit(), f"a 429 needs Retry-After in seconds, got {wait!r}: {reply.shown}"
        assert 1 <= int(wait) <= LONGEST, f"Retry-After is {wait} s: too soon or too late to be of use"
        assert reply.body, "the 429 does not say why"
        assert reply.json(), f"the 429 does not say why: {reply.shown}"
