"""RTR-109."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.conformance.router.raw import RawClient, head, post
from gaugeblock.fixtures.targets.router import CHAT


@check(
    "RTR-109",
    feature="proxy",
    level="extended",
    bound="exact: no body after HEAD, a final status for OPTIONS, and the next request on the connection is served",
    sources=(
        "https://www.rfc-editor.org/rfc/rfc9110#section-9.3.2",
        "https://www.rfc-editor.org/rfc/rfc9110#section-15.5.6",
    ),
)
def test_rtr_109(router_lab: LabFactory) -> None:
    """HEAD and OPTIONS leave the connection in order.

    A body after HEAD is read as the next answer: every later request of that connection gets somebody else's. Look at
    what is written for methods other than GET and POST; a 405 must name the methods that are allowed.
    """
    lab = router_lab()
    with RawClient(lab) as client:
        client.send(head("HEAD", "/v1/models"))
        looked = client.reply(bodiless=True)
        client.send(head("OPTIONS", CHAT))
        asked = client.reply()
        client.send(post(CHAT, lab.body(lab.mark())))
        reply = client.reply()
    assert looked.status < 500, f"HEAD /v1/models got {looked.status}"
    assert asked.status < 500, f"OPTIONS {CHAT} got {asked.status}: {asked.body[:200]!r}"
    assert asked.status != 405 or asked.values("allow"), f"405 for OPTIONS {CHAT} must name what it allows: {asked}"
    assert reply.status == 200, (
        f"behind HEAD and OPTIONS on one connection a chat got {reply.status}: {reply.body[:200]!r}"
    )
