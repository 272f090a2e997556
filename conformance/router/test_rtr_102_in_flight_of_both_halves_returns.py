"""RTR-102."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.conformance.router.pairs import PATIENCE, give_up, halves, pair_lab
from gaugeblock.fixtures.workers.script import HEALTHY, RESET_AT_ONCE, Answer


@check(
    "RTR-102",
    feature="loads",
    bound="exact within 3 s: one at decode and none at prefill while a stream is held, then none at all",
    sources=(
        "https://github.com/sgl-project/sglang/pull/39951",
        "https://github.com/sgl-project/sglang/pull/34850",
        "https://github.com/sgl-project/sglang/pull/9491",
    ),
)
def test_rtr_102(router_lab: LabFactory) -> None:
    """Each half counts as in flight while its worker is at it, and no longer, however the request ends.

    A prefill worker that counts for the whole of decode looks busy and is idle; a count that never comes down keeps a
    worker idle for ever. Look at where each side's count is taken, and at every way out.
    """
    lab = pair_lab(router_lab, needs=("loads",), prefill=1, decode=1)
    nothing, gate = {"p0": 0, "d0": 0}, lab.gate()
    lab.decodes[0].always(Answer(frame_hold=gate))
    with lab.open_stream() as (exchange, _):
        next(exchange.pieces())
        lab.await_loads({"p0": 0, "d0": 1}, PATIENCE)
    lab.await_loads(nothing, PATIENCE)
    lab.decodes[0].always(HEALTHY)
    lab.prefills[0].always(Answer(hold=gate))
    give_up(lab, lambda: all(halves(lab, lab.arrivals("leave early"))), "leave early")
    lab.await_loads(nothing, PATIENCE)
    for failing, other in ((lab.prefills[0], lab.decodes[0]), (lab.decodes[0], lab.prefills[0])):
        failing.always(RESET_AT_ONCE)
        other.always(HEALTHY)
        lab.together(4)
        lab.await_loads(nothing, PATIENCE)
