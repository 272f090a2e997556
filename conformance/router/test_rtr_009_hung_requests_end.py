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
SILENT = "fall silent"


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
        worker.always(lambda arrival: dies_after(2, End.HANG) if SILENT.encode() in arrival.body else HANG_AT_ONCE)
    plain, streamed, silent = parallel([lambda: _ends(lab), lambda: _ends(lab, stream=True), lambda: _silent(lab)])
    assert not plain, plain
    assert not streamed, streamed
    assert not silent, silent


def _silent(lab: RouterLab) -> str:
    """Return what is wrong with the end of a stream that fell silent after two frames."""
    ending, _ = ending_of(lab, SILENT)
    if ending.clean:
        return f"a stream that fell silent ended as if it were whole: {ending.shown}"
    return f"a stream that fell silent was left open: {ending.shown}" if "limit of the call" in ending.broken else ""


def _ends(lab: RouterLab, *, stream: bool = False) -> str:
    """Return what is wrong with the end of a request to hung workers."""
    kind = "streamed" if stream else "plain"
    try:
        reply = lab.send(f"hung {kind}", stream=stream, limits=Limits(2.0, BOUND, BOUND)).reply
    except TargetFault as fault:
        tries = len(lab.arrivals(f"hung {kind}"))
        return (
            f"a {kind} request to hung workers did not end within {BOUND:g} s, having been sent {tries} times: {fault}"
        )
    return "" if reply.status >= 500 else f"with both workers hung a {kind} request got {reply.shown}"
