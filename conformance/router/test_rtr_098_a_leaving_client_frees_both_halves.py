"""RTR-098."""

from __future__ import annotations

import pytest

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.conformance.router.pairs import await_called_off, give_up, halves, pair_lab
from gaugeblock.fixtures.workers.script import Answer


@check(
    "RTR-098",
    feature="pd",
    bound="3 s from the client's disconnect to both workers'; it takes milliseconds",
    sources=(
        "https://github.com/sgl-project/sglang/pull/9817",
        "https://github.com/sgl-project/sglang/pull/18701",
        "https://github.com/sgl-project/sglang/issues/36926",
        "https://github.com/ai-dynamo/dynamo/pull/14775",
    ),
)
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_rtr_098(router_lab: LabFactory, stream: bool) -> None:
    """A client that leaves during prefill frees both workers; one that leaves during decode frees decode.

    The half that the router was not reading goes on: prefill computes, or decode keeps its slot and waits. Look at
    whether both connections are closed when the client's is.
    """
    lab = pair_lab(router_lab)
    gate = lab.gate()
    for worker in lab.prefills:
        worker.always(Answer(hold=gate))
    mark = give_up(lab, lambda: all(halves(lab, lab.arrivals("leave early"))), "leave early", stream=stream)
    await_called_off(lab, lab.prefills, mark, "the client left during prefill")
    await_called_off(lab, lab.decodes, mark, "the client left during prefill")
    if not stream:
        return
    for worker in lab.prefills:
        worker.always(Answer())
    for worker in lab.decodes:
        worker.always(Answer(frame_hold=gate))
    with lab.open_stream("leave midway") as (exchange, mark):
        next(exchange.pieces())
    await_called_off(lab, lab.decodes, mark, "the client left during decode")
