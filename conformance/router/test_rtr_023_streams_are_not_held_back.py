"""RTR-023."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.endings import read_to_end
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.fixtures.targets.wire import Limits
from gaugeblock.fixtures.workers.script import Answer

PATIENCE = 3.0


@check(
    "RTR-023",
    feature="proxy",
    bound="the first frame arrives within 3 s although the second does not exist yet; it takes milliseconds",
    sources=("https://github.com/vllm-project/aibrix/issues/2653",),
)
def test_rtr_023(router_lab: LabFactory) -> None:
    """The first frame of a stream arrives before the second is made.

    The router collects: time to first token becomes time to last token. Look for buffering of bodies and for
    compression in between.
    """
    lab = router_lab()
    gate = lab.gate()
    for worker in lab.workers:
        worker.always(Answer(frame_hold=gate, hold_after=1))
    counts: list[int] = []

    def seen(count: int) -> None:
        counts.append(count)
        gate.open()

    with lab.open_stream(limits=Limits(2.0, PATIENCE, 2 * PATIENCE)) as (exchange, _):
        ending = read_to_end(exchange, seen)
    assert counts, f"nothing of a stream arrived in {PATIENCE:g} s although its first frame was sent: {ending.shown}"
    assert counts[0] == 1, f"{counts[0]} frames came at once while the worker had made one"
    assert ending.clean, f"the stream did not end in order: {ending.shown}"
