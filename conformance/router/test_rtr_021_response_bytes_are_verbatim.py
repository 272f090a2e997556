"""RTR-021."""

from __future__ import annotations

import pytest

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.fixtures.workers.script import Answer

BODY = (
    b'{ "id" : "x", "choices":[{"index":0,"message":{"role":"assistant","content":"\\u00fc \xf0\x9f\x98\x80"},\n'
    b'"finish_reason":"stop"}], "usage": {"prompt_tokens": 12345678901234567890}, "new_field": [1.0, null]  }\r\n'
)


@check(
    "RTR-021",
    feature="proxy",
    bound="exact: the same status, content type and bytes",
    sources=("https://github.com/sgl-project/sglang/issues/28175",),
)
@pytest.mark.parametrize("status", [200, 400, 422])
def test_rtr_021(router_lab: LabFactory, status: int) -> None:
    """A worker's answer comes back byte for byte, errors included.

    The router rewrote it: new fields vanish, numbers change, a helpful 400 becomes a bare 500. Look at whether answers
    are parsed on their way back.
    """
    lab = router_lab()
    for worker in lab.workers:
        worker.always(Answer(status=status, headers=(("content-type", "application/json"),), body=BODY, split=40))
    reply = lab.send("verbatim").reply
    assert reply.status == status, f"the worker answered {status}, the client got {reply.shown}"
    assert reply.body == BODY, f"the answer's bytes were changed: {BODY!r} became {reply.body!r}"
    kind = reply.headers.get("content-type")
    assert kind == "application/json", f"the content type application/json became {kind!r}"
