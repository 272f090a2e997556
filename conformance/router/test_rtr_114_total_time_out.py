"""RTR-114."""

from __future__ import annotations

import json

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.endings import read_to_end
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.fixtures.targets.wire import Limits
from gaugeblock.fixtures.workers.script import Answer

TIMEOUT, PACE, FRAMES, BOUND = 1.0, 0.2, 40, 6.0
FRAME = b"data: " + json.dumps({"choices": [{"index": 0, "delta": {"content": "more "}}]}).encode() + b"\n\n"


@check(
    "RTR-114",
    feature="timeouts",
    level="extended",
    bound="ended within 6 s, and not in good order: the time-out is 1 s, the stream would take 8",
    sources=("https://github.com/NVIDIA/OpenShell/issues/641",),
)
def test_rtr_114(router_lab: LabFactory) -> None:
    """The total time-out ends a stream that never would.

    A generation in a loop is never silent, so no idle time-out ends it. Look at whether the limit on the whole request
    is armed for streams as well, apart from the limit on silence.
    """
    lab = router_lab(needs=("timeouts",), workers=1, total_timeout=TIMEOUT)
    lab.workers[0].always(Answer(frames=(FRAME,) * FRAMES, pace=PACE))
    with lab.open_stream("for ever", limits=Limits(2.0, BOUND, BOUND)) as (exchange, _):
        ending = read_to_end(exchange)
    assert "limit of the call" not in ending.broken, f"a total time-out of {TIMEOUT:g} s did not end: {ending.shown}"
    assert len(ending.events) < FRAMES, f"a total time-out of {TIMEOUT:g} s let {len(ending.events)} frames pass"
    assert not ending.clean, f"a stream cut by the total time-out ended as if it were whole: {ending.shown}"
