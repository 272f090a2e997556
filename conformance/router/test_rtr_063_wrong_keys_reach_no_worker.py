"""RTR-063."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.fixtures.targets.router import CHAT
from gaugeblock.fixtures.targets.router_words import API_KEY

WRONG = {
    "no key": "",
    "another key": "Bearer not-the-key",
    "the key's beginning": f"Bearer {API_KEY[:-1]}",
    "the key and more": f"Bearer {API_KEY}x",
    "the key in capitals": f"Bearer {API_KEY.upper()}",
    "an empty key": "Bearer ",
    "another scheme": f"Basic {API_KEY}",
}


@check(
    "RTR-063",
    feature="auth",
    level="extended",
    bound=f"exact: 401 and no arrival for {len(WRONG)} ways of having no key, plain and streamed; 200 with the key",
    sources=(
        "https://github.com/sgl-project/sglang/pull/10826",
        "https://www.rfc-editor.org/rfc/rfc9110#section-15.5.2",
    ),
)
def test_rtr_063(router_lab: LabFactory) -> None:
    """Only whoever has the key is served, and a request without it reaches no worker.

    Look at which routes the check of the key covers, and at how keys are compared.
    """
    lab = router_lab(needs=("auth",), keys=True)
    good = lab.send("with the key", stream=True).reply
    assert good.status == 200, f"with the right key: {good.shown}"
    for what, value in WRONG.items():
        for stream in (False, True):
            mark = lab.mark()
            headers = {"authorization": value} if value else {}
            reply = lab.stranger.call("POST", CHAT, lab.body(f"let me in {mark}", stream=stream), headers)
            served = [arrival.worker for arrival in lab.arrivals(mark)]
            assert not served, f"{what}: the request reached {served}"
            assert reply.status == 401, f"{what}: 401 was due, got {reply.shown}"
