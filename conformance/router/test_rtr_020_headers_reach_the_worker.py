"""RTR-020."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory

HEADERS = {
    "authorization": "Bearer not-a-secret",
    "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "tracestate": "vendor=value",
    "x-request-id": "gaugeblock-request-7",
    "x-correlation-id": "gaugeblock-correlation-7",
    "x-tenant": "gaugeblock",
    "x-priority": "3",
}


@check(
    "RTR-020",
    feature="proxy",
    level="extended",
    bound="exact: each header arrives with its value; hop-by-hop headers do not",
    sources=(
        "https://github.com/sgl-project/sglang/issues/29206",
        "https://www.rfc-editor.org/rfc/rfc9110#section-7.6.1",
    ),
)
def test_rtr_020(router_lab: LabFactory) -> None:
    """End-to-end headers reach the worker, hop-by-hop ones do not.

    Authorisation, tracing or tenancy is lost behind the router. Look for a list of headers that may pass: only those
    named by RFC 9110 for one hop may be dropped.
    """
    lab = router_lab()
    sent = lab.send("headers", headers={**HEADERS, "connection": "x-one-hop", "x-one-hop": "1"})
    sent.reply.expect(200)
    arrival = sent.arrivals[-1]
    wrong = {name: arrival.header(name) for name, value in HEADERS.items() if arrival.header(name) != value}
    assert not wrong, f"headers changed or lost on their way to the worker (what arrived): {wrong}"
    leaked = arrival.header("x-one-hop")
    assert leaked is None, f"a header that Connection named for one hop was passed on: x-one-hop: {leaked}"
