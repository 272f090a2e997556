"""RTR-072."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.fixtures.targets.router import RouterLab
from gaugeblock.fixtures.targets.router_words import Rule

GOOD = b'[[rules]]\nname = "new"\nmatch = { headers = { "x-sla" = "gold" } }\npool = "main"\n[[rules]]\nname = "rest"\n'
BAD = {
    "no TOML": b"[[rules]\n",
    "an unknown field": GOOD.replace(b"pool =", b"pol ="),
    "an unknown pool": GOOD.replace(b'"main"', b'"mian"'),
    "a good rule before a bad one": GOOD + b'[[rules]]\nname = "bad"\nband = 7\n',
}
REQUESTS = 6


@check(
    "RTR-072",
    feature="rules-reload",
    level="extended",
    bound=f"exact: {len(BAD)} bad sets of rules are refused with 4xx and {REQUESTS} requests go where they went; after "
    "a good set they go where it says",
    sources=("https://github.com/openshift/origin/issues/7403", "https://github.com/apollographql/router/issues/2752"),
)
def test_rtr_072(router_lab: LabFactory) -> None:
    """Rules are replaced at run time all at once, and a bad set of them changes nothing.

    Look at what is already in force when the mistake is found.
    """
    rules = (Rule("old", "next", header=("x-sla", "gold")), Rule("rest", "main"))
    lab = router_lab(needs=("rules", "rules-reload"), workers=2, pools=("main", "next"), rules=rules, fresh=True)
    _expect(lab, "w1", "before any reload")
    for what, text in BAD.items():
        reply = lab.wire.call("POST", "/rules", text)
        assert 400 <= reply.status < 500, f"{what}: a refusal with 4xx was due, got {reply.shown}"
        _expect(lab, "w1", f"after rules with {what} were refused")
    reply = lab.wire.call("POST", "/rules", GOOD)
    assert reply.status == 200, f"good rules were refused: {reply.shown}"
    _expect(lab, "w0", "after good rules were taken")


def _expect(lab: RouterLab, worker: str, when: str) -> None:
    got = [lab.send("hello", headers={"x-sla": "gold"}) for _ in range(REQUESTS)]
    served = [sent.worker if sent.arrivals else f"nobody ({sent.reply.status})" for sent in got]
    assert served == [worker] * REQUESTS, (
        f"{when} the rules in force name the pool of {worker}; requests went to {served}"
    )
