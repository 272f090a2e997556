"""RTR-107."""

from __future__ import annotations

import json

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.conformance.router.raw import RawClient, RawReply, post
from gaugeblock.fixtures.targets.router import CHAT
from gaugeblock.fixtures.workers.script import Answer, Arrival

REQUESTS = 4


@check(
    "RTR-107",
    feature="proxy",
    level="extended",
    bound="exact: an answer a request, in their order",
    sources=("https://www.rfc-editor.org/rfc/rfc9112#section-9.3.2",),
)
def test_rtr_107(router_lab: LabFactory) -> None:
    """Requests sent one behind the other on a connection are answered each, in order.

    An answer was lost or went to the wrong request: for whoever shares the connection that is somebody else's answer.
    Look at what becomes of the bytes that follow a request.
    """
    lab = router_lab()
    for worker in lab.workers:
        worker.always(_echo)
    marks = [lab.mark() for _ in range(REQUESTS)]
    with RawClient(lab) as client:
        client.send(b"".join(post(CHAT, lab.body(mark)) for mark in marks))
        replies = [client.reply() for _ in marks]
    seen = [_marked(reply) for reply in replies]
    assert seen == marks, f"requests {marks} on one connection were answered by {seen}"


def _echo(arrival: Arrival) -> Answer:
    return Answer(body=json.dumps({"echo": arrival.json()["messages"][-1]["content"]}).encode())


def _marked(reply: RawReply) -> str:
    try:
        return str(json.loads(reply.body)["echo"])
    except (ValueError, KeyError, TypeError):
        return f"{reply.status} {reply.body[:80]!r}"
