"""RTR-086."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.draining import tell_to_stop
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.conformance.router.queues import Crowd, Turnstile
from gaugeblock.fixtures.errors import TargetFault

WAITING = 3


@check(
    "RTR-086",
    feature="queue",
    level="extended",
    bound="each of 1 in flight and 3 waiting at SIGTERM gets 200, or 503 with Retry-After; none is cut",
    sources=("https://www.rfc-editor.org/rfc/rfc9110#section-15.6.4",),
)
def test_rtr_086(router_lab: LabFactory) -> None:
    """A router that is told to end answers those that wait, or tells them to come back.

    Requests that waited were cut without a word, so clients took a restart for a crash. Look at whether the drain
    waits for the queue too, and what it does with those that are left.
    """
    lab = router_lab(needs=("queue", "drain"), workers=1, max_concurrent=1, fresh=True)
    gates = Turnstile(lab, 1 + WAITING)
    with Crowd(lab) as crowd:
        crowd.send("first")
        gates.await_arrivals(1)
        for number in range(WAITING):
            crowd.enqueue(f"waits {number}")
        tell_to_stop(lab)
        gates.open()
        ends = {name: _end(crowd, name) for name in crowd.sent}
    assert ends["first"] == "200", f"the request in flight at SIGTERM ended with {ends['first']}"
    lost = {name: end for name, end in ends.items() if end not in ("200", "503 and when to come back")}
    assert not lost, f"{len(lost)} of {WAITING} requests that waited at SIGTERM were lost: {lost}"


def _end(crowd: Crowd, name: str) -> str:
    try:
        reply = crowd.sent[name].reply()
    except TargetFault as fault:
        return str(fault)
    if reply.status == 503 and reply.headers.get("retry-after", "").isdigit():
        return "503 and when to come back"
    return str(reply.status) if reply.ok else reply.shown
