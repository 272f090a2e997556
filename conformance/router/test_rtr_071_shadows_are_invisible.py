"""RTR-071."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.fixtures.errors import TargetFault
from gaugeblock.fixtures.targets.router import RouterLab
from gaugeblock.fixtures.targets.router_words import Rule, Shadow
from gaugeblock.fixtures.targets.wire import Limits
from gaugeblock.fixtures.workers.script import HANG_AT_ONCE, Answer
from gaugeblock.fixtures.workers.shapes import reply_words

REQUESTS = 8
PATIENCE = 5.0
LIMITS = Limits(connect=1.0, idle=PATIENCE, total=PATIENCE)


@check(
    "RTR-071",
    feature="shadow",
    level="extended",
    bound=f"exact, {REQUESTS} requests each time: every answer is the main pool's, every copy the request's own bytes; "
    f"with a hung and with a dead shadow each ends within {PATIENCE:g} s, and a healthy one takes milliseconds",
    sources=(
        "https://gateway-api.sigs.k8s.io/guides/http-request-mirroring",
        "https://github.com/apache/apisix/issues/6536",
    ),
)
def test_rtr_071(router_lab: LabFactory) -> None:
    """A shadow gets a copy of each request, and nothing of it reaches a client: no answer, no failure, no waiting.

    Look at which of the two answers is relayed, at what waits for both, and at whose failure is retried.
    """
    lab = router_lab(
        needs=("shadow",),
        workers=2,
        pools=("main", "next"),
        rules=(Rule("rest", "main"),),
        experiments=(Shadow("mirror", "next"),),
        fresh=True,
    )
    main, shadow = lab.workers
    shadow.always(Answer(body=b'{"from": "the shadow"}'))
    _send(lab, "while the shadow answers")
    lab.loop.wait_for(
        lambda: len(shadow.requests) >= REQUESTS,
        PATIENCE,
        lambda: f"the shadow's pool was to get a copy of {REQUESTS} requests, and got {len(shadow.requests)}",
    )
    bodies, copies = {a.body for a in main.requests}, {a.body for a in shadow.requests}
    assert bodies == copies, "the copies are not the requests, byte for byte"
    shadow.always(Answer(status=500))
    _send(lab, "while the shadow fails")
    shadow.always(HANG_AT_ONCE)
    _send(lab, "while the shadow hangs")
    shadow.kill()
    _send(lab, "while the shadow is dead")
    assert len(main.requests) == 4 * REQUESTS, (
        f"{4 * REQUESTS} requests reached the main pool {len(main.requests)} times"
    )


def _send(lab: RouterLab, when: str) -> None:
    for number in range(REQUESTS):
        try:
            sent = lab.send(f"turn {number}", stream=number % 2 == 1, limits=LIMITS)
        except TargetFault as fault:
            raise TargetFault(f"{when}, a client had to wait: {fault}") from None
        assert sent.reply.status == 200, f"{when}, a client got {sent.reply.shown}"
        wrong = f"{when}, the client's answer is not the main pool's: {sent.reply.shown}"
        mains = [arrival for arrival in sent.arrivals if arrival.worker == lab.workers[0].name]
        assert mains, wrong
        words = reply_words(f"user: {mains[0].json()['messages'][0]['content']}")
        missing = [word for word in words if word.strip() not in sent.reply.body.decode()]
        assert not missing, wrong
