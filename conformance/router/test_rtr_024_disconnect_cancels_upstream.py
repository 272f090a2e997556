"""RTR-024."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.fixtures.errors import TargetFault
from gaugeblock.fixtures.targets.router import RouterLab
from gaugeblock.fixtures.targets.wire import Limits
from gaugeblock.fixtures.workers.script import Answer

PATIENCE = 3.0


@check(
    "RTR-024",
    feature="proxy",
    bound="3 s from the client's disconnect to the worker's; it takes milliseconds",
    sources=("https://github.com/vllm-project/router/issues/215",),
)
def test_rtr_024(router_lab: LabFactory) -> None:
    """When the client leaves, the worker's generation is cancelled.

    The worker goes on generating for nobody. Look at whether the router notices a closed client while it waits for the
    worker, before the first byte as well as in the middle of a stream.
    """
    lab = router_lab()
    gate = lab.gate()
    for worker in lab.workers:
        worker.always(Answer(frame_hold=gate))
    with lab.open_stream() as (exchange, mark):
        next(exchange.pieces())
    _await_leaving(lab, mark, "in the middle of a stream")

    for worker in lab.workers:
        worker.always(Answer(hold=gate))
    before = len(lab.arrivals())
    try:
        reply = lab.send("leave early", limits=Limits(1.0, 0.3, 0.3)).reply
        raise TargetFault(f"the worker had not answered, yet the client got {reply.shown}")
    except TargetFault as fault:
        if "limit of the call" not in str(fault):
            raise
    left = lab.arrivals()[before:]
    assert left, "the request never reached a worker"
    _await_leaving(lab, "leave early", "before the first byte")


def _await_leaving(lab: RouterLab, mark: str, when: str) -> None:
    lab.loop.wait_for(
        lambda: all(arrival.ended == "client left" for arrival in lab.arrivals(mark)),
        PATIENCE,
        lambda: (
            f"the client left {when}, and the worker's generation was to be cancelled; it is "
            f"{[arrival.ended or 'still running' for arrival in lab.arrivals(mark)]}"
        ),
    )
