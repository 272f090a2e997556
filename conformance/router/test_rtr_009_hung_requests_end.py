"""RTR-009."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.endings import ending_of
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.fixtures.errors import TargetFault
from gaugeblock.fixtures.targets.parallel import parallel
from gaugeblock.fixtures.targets.router import RouterLab
from gaugeblock.fixtures.targets.wire import Limits
from gaugeblock.fixtures.workers.script import HANG_AT_ONCE, End, dies_after

TIMEOUT = 1.0
BOUND = 4 * TIMEOUT


@check(
    "RTR-009",
    feature="timeouts",
    bound="4 s with a time-out of 1 s: two attempts that each use it up, twice over",
    sources=("https://github.com/vllm-project/production-stack/issues/749",),
)
def test_rtr_009(router_lab: LabFactory) -> None:
    """A request to a hung worker ends, and says so.

    It was still open after several time-outs, or a stream that had fallen silent ended as if it were whole. Look at
    which of the time-outs covers the wait for the head, and which the wait between two pieces.
    """
    lab = router_lab(needs=("timeouts",), workers=2, idle_timeout=TIMEOUT, total_timeout=TIMEOUT)
    for worker in lab.workers:
        worker.always(HANG_AT_ONCE)
    answers = parallel([lambda: _ends(lab, stream=False), lambda: _ends(lab, stream=True)])
    assert all(status >= 500 for status in answers), f"with both workers hung the router answered {answers}"
    for worker in lab.workers:
        worker.always(dies_after(2, End.HANG))
    ending, _ = ending_of(lab)
    assert not ending.clean, f"a stream that fell silent ended as if it were whole: {ending.shown}"
    assert "limit of the call" not in ending.broken, f"a stream that fell silent was left open: {ending.shown}"


def _ends(lab: RouterLab, *, stream: bool) -> int:
    kind = "streamed" if stream else "plain"
    try:
        return lab.send(f"hung {kind}", stream=stream, limits=Limits(2.0, BOUND, BOUND)).reply.status
    except TargetFault as fault:
        tries = len(lab.arrivals(f"hung {kind}"))
        raise TargetFault(
            f"a {kind} request to hung workers did not end within {BOUND:g} s, having been sent {tries} times: {fault}"
        ) from None
