"""RTR-113."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.fixtures.errors import TargetFault
from gaugeblock.fixtures.targets.wire import Limits
from gaugeblock.fixtures.workers.script import End, dies_after

TIMEOUT, BOUND = 1.0, 8.0


@check(
    "RTR-113",
    feature="timeouts",
    bound="an error within 8 s; the time-out is 1 s, and several attempts are allowed",
    sources=("https://github.com/vllm-project/production-stack/issues/749",),
)
def test_rtr_113(router_lab: LabFactory) -> None:
    """A plain answer that stops in its middle ends too.

    The time-out was armed for streams alone, or for the head alone: a worker that froze while it wrote kept its client
    for ever. Look at which wait each time-out covers once the head has come.
    """
    lab = router_lab(needs=("timeouts",), workers=1, idle_timeout=TIMEOUT)
    lab.workers[0].always(dies_after(1, End.HANG))
    try:
        reply = lab.send("half an answer", limits=Limits(2.0, BOUND, BOUND)).reply
    except TargetFault as fault:
        if "limit of the call" in str(fault):
            raise TargetFault(f"an answer that stopped in its middle was left open: {fault}") from None
        return
    assert reply.status >= 500, f"half of an answer was passed on as a whole one: {reply.shown}"
