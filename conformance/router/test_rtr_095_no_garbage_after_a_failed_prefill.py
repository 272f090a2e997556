"""RTR-095."""

from __future__ import annotations

import pytest

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.endings import read_to_end
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.conformance.router.pairs import pair_lab
from gaugeblock.fixtures.targets.router import CHAT
from gaugeblock.fixtures.workers.script import Answer


@check(
    "RTR-095",
    feature="pd",
    bound="exact: no 200 that ends in good order",
    sources=(
        "https://github.com/sgl-project/sglang/issues/30233",
        "https://github.com/sgl-project/sglang/pull/34208",
    ),
)
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_rtr_095(router_lab: LabFactory, stream: bool) -> None:
    """What decode makes of the KV of a failed prefill is not passed off as an answer.

    A prefill worker that refuses a prompt may have handed over a KV of one token; decode then generates from memory
    that nobody has written. Look at whether an answer of decode can be whole before prefill's has been read.
    """
    lab = pair_lab(router_lab)
    for worker in lab.prefills:
        worker.always(Answer(status=400, delivers="after"))
    mark = lab.mark()
    with lab.wire.exchange("POST", CHAT, lab.body(f"too long {mark}", stream=stream), {}) as exchange:
        if exchange.status != 200:
            return
        if stream:
            ending = read_to_end(exchange)
            assert not ending.clean, (
                f"prefill refused the prompt, yet decode's stream was passed on whole: {ending.shown}"
            )
        else:
            body = b"".join(exchange.pieces())
            raise AssertionError(f"prefill refused the prompt, yet the client got decode's answer: {body[:200]!r}")
