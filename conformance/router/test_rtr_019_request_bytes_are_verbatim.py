"""RTR-019."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.fixtures.targets.router import CHAT


@check(
    "RTR-019",
    feature="proxy",
    level="extended",
    bound="exact: the same bytes",
    sources=("https://github.com/vllm-project/router/issues/161",),
)
def test_rtr_019(router_lab: LabFactory) -> None:
    """The body of a request arrives byte for byte.

    Rewriting costs time on long prompts and changes what a signature or a cache key was made of. Look at whether the
    body is parsed only for routing and forwarded as it came.
    """
    lab = router_lab()
    mark = lab.mark()
    body = (
        b'{ "messages" : [\t{"role":"user", "content":"\\u00fcber \xc3\xbcber ' + mark.encode() + b'"}\n],\r\n'
        b'  "model":"scripted", "temperature": 1.0e0, "seed":1234567890 , "zz": {"a":[ 12345678901234567890 ]}  }\n'
    )
    lab.wire.call("POST", CHAT, body).expect(200)
    arrived = lab.arrivals(mark)[-1].body
    assert arrived == body, f"the request's bytes were changed: sent {body!r}, arrived {arrived!r}"
