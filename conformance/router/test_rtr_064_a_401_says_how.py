"""RTR-064."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.conformance.router.refusal import must_be_json_error
from gaugeblock.fixtures.targets.router import CHAT

PATHS = (CHAT, "/v1/completions")


@check(
    "RTR-064",
    feature="auth",
    level="extended",
    bound="exact: WWW-Authenticate with a scheme, which RFC 9110 demands, and an error in JSON; /health needs no key",
    sources=("https://www.rfc-editor.org/rfc/rfc9110#section-11.6.1", "https://pypi.org/project/sglang-router/0.3.2/"),
)
def test_rtr_064(router_lab: LabFactory) -> None:
    """A refusal for want of a key says which scheme it wants and is an error in JSON; health needs no key.

    Client libraries print the body's message; an empty one leaves people guessing. A balancer has no key.
    """
    lab = router_lab(needs=("auth",), keys=True)
    for path in PATHS:
        reply = lab.stranger.call("POST", path, lab.body("hello"), {"authorization": "Bearer not-the-key"}).expect(401)
        challenge = reply.headers.get("WWW-Authenticate", "")
        assert challenge.split(), f"{path}: a 401 needs WWW-Authenticate; its headers are {sorted(reply.headers)}"
        must_be_json_error(lab.url, 401, reply.body, path)
    health = lab.stranger.call("GET", "/health")
    assert health.status == 200, f"/health without a key answered {health.shown}"
