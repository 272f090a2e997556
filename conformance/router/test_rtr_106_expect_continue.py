"""RTR-106."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.conformance.router.raw import RawClient, head
from gaugeblock.fixtures.targets.router import CHAT


@check(
    "RTR-106",
    feature="proxy",
    level="extended",
    bound="exact: 100 or a final status before any byte of the body has been sent, within 5 s",
    sources=("https://www.rfc-editor.org/rfc/rfc9110#section-10.1.1",),
)
def test_rtr_106(router_lab: LabFactory) -> None:
    """A client that asks before it sends a long body gets its answer.

    Clients such as curl wait a second or more for ``100 Continue`` on every long prompt, some for ever. Look at whether
    the router answers ``Expect: 100-continue`` itself: its worker does not see the request before it is whole.
    """
    lab = router_lab()
    body = lab.body(f"a long prompt {lab.mark()}")
    with RawClient(lab) as client:
        client.send(head("POST", CHAT, f"Content-Length: {len(body)}", "Expect: 100-continue"))
        first = client.reply()
        assert first.status == 100, f"Expect: 100-continue was answered with {first.status}: {first.body[:200]!r}"
        client.send(body)
        reply = client.reply()
    assert reply.status == 200, f"after 100 Continue the request got {reply.status}: {reply.body[:200]!r}"
