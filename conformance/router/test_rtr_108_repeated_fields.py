"""RTR-108."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.conformance.router.raw import RawClient, post
from gaugeblock.fixtures.targets.router import CHAT
from gaugeblock.fixtures.workers.script import Answer

VALUES = ["first; path=/", "second; path=/v1"]


@check(
    "RTR-108",
    feature="proxy",
    level="extended",
    bound="exact: each line with its value, in order; the names in any case",
    sources=(
        "https://www.rfc-editor.org/rfc/rfc9110#section-5.3",
        "https://github.com/sgl-project/sglang/issues/29206",
    ),
)
def test_rtr_108(router_lab: LabFactory) -> None:
    """A header that comes twice passes twice, both ways and in any spelling.

    One of them was dropped or both were joined: cookies are lost, and a list read by its first element changes. Look
    for headers kept in a plain dictionary.
    """
    lab = router_lab()
    for worker in lab.workers:
        worker.always(Answer(headers=tuple(("Set-Cookie", value) for value in VALUES)))
    mark = lab.mark()
    with RawClient(lab) as client:
        client.send(post(CHAT, lab.body(mark), "X-Tag: one", "x-tag: two", "X-TAG: three"))
        reply = client.reply()
    assert reply.status == 200, f"a request with a repeated header got {reply.status}: {reply.body[:200]!r}"
    arrived = [value for name, value in lab.arrivals(mark)[0].headers if name.lower() == "x-tag"]
    assert arrived == ["one", "two", "three"], f"X-Tag was sent as one, two, three and reached the worker as {arrived}"
    cookies = reply.values("set-cookie")
    assert cookies == VALUES, f"the worker set the cookies {VALUES}, the client got {cookies}"
