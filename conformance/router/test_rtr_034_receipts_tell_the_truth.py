"""RTR-034."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.fixtures.targets.router import RouterLab, Sent
from gaugeblock.fixtures.workers.script import RESET_AT_ONCE


@check(
    "RTR-034",
    feature="receipts",
    level="extended",
    bound="exact: the named worker is the one that answered",
    sources=("https://pypi.org/project/smg/1.13.0/",),
)
def test_rtr_034(router_lab: LabFactory) -> None:
    """The receipt names the worker that answered, also after a retry and on a stream.

    Whoever debugs by it is sent to the wrong machine. Look at whether the header is written from the first choice or
    from the attempt that succeeded.
    """
    lab = router_lab(needs=("receipts",))
    for number in range(3):
        _compare(lab, lab.send(f"plain {number}"), "on a plain answer")
    _compare(lab, lab.send("stream", stream=True), "on a stream")
    lab.workers[0].always(RESET_AT_ONCE)
    for number in range(3):
        _compare(lab, lab.send(f"retried {number}"), "after a retry")


def _compare(lab: RouterLab, sent: Sent, when: str) -> None:
    name = lab.launcher.receipt_header
    assert name is not None
    named = sent.reply.expect(200).headers.get(name)
    served = lab.worker(sent.worker).url
    assert named == served, f"{when} the receipt {name} names {named}, but {served} ({sent.worker}) answered"
