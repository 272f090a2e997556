"""RTR-060."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.conformance.router.refusal import must_be_json_error

UNKNOWN = ("gamma", "alph", "alpha2", "ALPHA")


@check(
    "RTR-060",
    feature="models",
    level="extended",
    bound="exact: 404 with an error in JSON for each of 4 unknown names, plain and streamed, and no arrival",
    sources=("https://pypi.org/project/sglang-router/0.3.2/", "https://github.com/THUDM/slime/pull/2112"),
)
def test_rtr_060(router_lab: LabFactory) -> None:
    """A model that no worker serves is refused, and no worker sees the request.

    A worker that has another model answers for it with what it has, under the name that was asked for. Look at what is
    routed when the model finds no pool.
    """
    lab = router_lab(needs=("models",), models=("alpha", "alpha", "beta"))
    for name in UNKNOWN:
        for stream in (False, True):
            sent = lab.send("who are you", model=name, stream=stream)
            served = [arrival.worker for arrival in sent.arrivals]
            assert not served, f"model {name!r} is served by nobody, yet {served} got the request"
            assert sent.reply.status == 404, f"model {name!r} is served by nobody; 404 was due, got {sent.reply.shown}"
            must_be_json_error(lab.url, 404, sent.reply.body, f"model {name!r}")
