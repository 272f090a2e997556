"""RTR-068."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.fixtures.targets.router import CHAT
from gaugeblock.fixtures.targets.router_words import Rule

POOLS = ("plain", "gold", "long", "native")
RULES = (
    Rule("by-header", "gold", header=("x-sla", "gold")),
    Rule("by-size", "long", min_bytes=4000),
    Rule("by-path", "native", path="/generate"),
    Rule("rest", "plain"),
)
LONG = "x" * 4000


@check(
    "RTR-068",
    feature="rules",
    level="extended",
    bound="exact: each of 7 kinds of requests, 4 of each, at the worker of the pool that the first matching rule names",
    sources=(
        "https://github.com/envoyproxy/ai-gateway/pull/510",
        "https://github.com/kubernetes-sigs/gateway-api/issues/1381",
    ),
)
def test_rtr_068(router_lab: LabFactory) -> None:
    """The first rule that matches decides the pool: by header, size of the prompt, and path.

    Look at the order of the rules, at a header's value, which is compared whole, and at what a size is measured of.
    """
    lab = router_lab(needs=("rules", "native-api"), workers=len(POOLS), pools=POOLS, rules=RULES)
    cases = {
        "a short chat": ("hello", CHAT, {}, "plain"),
        "a long chat": (LONG, CHAT, {}, "long"),
        "a short chat with the header": ("hello", CHAT, {"X-SLA": "gold"}, "gold"),
        "a long chat with the header": (LONG, CHAT, {"x-sla": "gold"}, "gold"),
        "a short chat with another value of the header": ("hello", CHAT, {"x-sla": "golden"}, "plain"),
        "a short /generate": ("hello", "/generate", {}, "native"),
        "a long /generate": (LONG, "/generate", {}, "long"),
    }
    for number in range(4):
        for what, (prompt, path, headers, pool) in cases.items():
            sent = lab.send(f"{number} {prompt}", path=path, headers=headers)
            sent.reply.expect(200)
            served = POOLS[lab.workers.index(lab.worker(sent.worker))]
            assert served == pool, f"{what} belongs to the pool {pool!r} by the rules, and went to {served!r}"
