"""RTR-025."""

from __future__ import annotations

from contextlib import ExitStack

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.fixtures.workers.script import RESET_AT_ONCE, Answer

STREAMS, PATIENCE = 6, 3.0


@check(
    "RTR-025",
    feature="loads",
    bound="exact within 3 s: as many in flight as streams are open at each worker, then none",
    sources=(
        "https://github.com/vllm-project/router/issues/215",
        "https://github.com/sgl-project/sglang/issues/27547",
    ),
)
def test_rtr_025(router_lab: LabFactory) -> None:
    """Requests in flight are counted while they run, and no longer.

    Live streams count as nothing, or a count never comes back after a disconnect or an error: load-aware policies then
    avoid an idle worker for ever. Look at where the count is taken down, and whether every way out passes there.
    """
    lab = router_lab(needs=("loads",))
    gate, nothing = lab.gate(), {worker.name: 0 for worker in lab.workers}
    for worker in lab.workers:
        worker.always(Answer(frame_hold=gate))
    with ExitStack() as streams:
        for _ in range(STREAMS):
            exchange, _ = streams.enter_context(lab.open_stream())
            next(exchange.pieces())
        lab.await_loads({worker.name: worker.in_flight for worker in lab.workers}, PATIENCE)
    lab.await_loads(nothing, PATIENCE)
    for worker in lab.workers:
        worker.always(RESET_AT_ONCE)
    lab.together(STREAMS)
    lab.await_loads(nothing, PATIENCE)
