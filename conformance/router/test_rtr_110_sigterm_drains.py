"""RTR-110."""

from __future__ import annotations

import signal
import subprocess
import time

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.endings import read_to_end
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.fixtures.errors import TargetFault
from gaugeblock.fixtures.targets.router import RouterLab
from gaugeblock.fixtures.targets.wire import Limits
from gaugeblock.fixtures.workers.script import Answer

PATIENCE, END = 3.0, 15.0


@check(
    "RTR-110",
    feature="drain",
    bound="exact: the stream is whole; no new request within 3 s of the signal; the process has ended 15 s after it",
    sources=("https://github.com/open-webui/open-webui/issues/29628",),
    timeout=45.0,
)
def test_rtr_110(router_lab: LabFactory) -> None:
    """A router that is told to stop takes no new request and finishes its streams.

    A rolling update cut the answers under way, or the router kept accepting and never ended. Look at the handler of
    SIGTERM: stop listening, wait for what runs, then exit.
    """
    lab = router_lab(needs=("drain",), fresh=True)
    gate = lab.gate()
    for worker in lab.workers:
        worker.always(Answer(frame_hold=gate))

    def seen(count: int) -> None:
        if count == 1:
            _stop(lab)
            gate.open()

    with lab.open_stream("a long story", limits=Limits(2.0, END, END)) as (exchange, _):
        ending = read_to_end(exchange, seen)
    whole = ending.clean and any(event.done for event in ending.events)
    assert whole, f"a stream that was under way at SIGTERM was not finished: {ending.shown}"
    try:
        lab.server.process.wait(END)
    except subprocess.TimeoutExpired:
        raise TargetFault(f"the router has not ended {END:g} s after SIGTERM, with nothing under way") from None


def _stop(lab: RouterLab) -> None:
    """Send SIGTERM and wait until a new request is not served any more."""
    lab.server.process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + PATIENCE
    while _serves(lab):
        assert time.monotonic() < deadline, f"{PATIENCE:g} s after SIGTERM the router still serves new requests"
        time.sleep(0.02)  # a router that stops tells nobody


def _serves(lab: RouterLab) -> bool:
    try:
        return lab.wire.call("GET", "/v1/models", limits=Limits(1.0, 1.0, 1.0)).ok
    except TargetFault:
        return False
