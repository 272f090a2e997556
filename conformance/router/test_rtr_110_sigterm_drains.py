"""RTR-110."""

from __future__ import annotations

import subprocess

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.draining import tell_to_stop
from gaugeblock.conformance.router.endings import read_to_end
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.fixtures.errors import TargetFault
from gaugeblock.fixtures.targets.wire import Limits
from gaugeblock.fixtures.workers.script import Answer

END = 15.0  # seconds


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
            tell_to_stop(lab)
            gate.open()

    with lab.open_stream("a long story", limits=Limits(2.0, END, END)) as (exchange, _):
        ending = read_to_end(exchange, seen)
    whole = ending.clean and any(event.done for event in ending.events)
    assert whole, f"a stream that was under way at SIGTERM was not finished: {ending.shown}"
    try:
        lab.server.process.wait(END)
    except subprocess.TimeoutExpired:
        raise TargetFault(f"the router has not ended {END:g} s after SIGTERM, with nothing under way") from None
