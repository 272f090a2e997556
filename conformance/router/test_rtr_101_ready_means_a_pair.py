"""RTR-101."""

from __future__ import annotations

import pytest

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.conformance.router.pairs import pair_lab


@check(
    "RTR-101",
    feature="readiness",
    bound="503 within 10 s of one side's death, 200 within 10 s of its return; health is asked once a second",
    sources=(
        "https://github.com/sgl-project/sglang/issues/12248",
        "https://github.com/sgl-project/sglang/issues/33740",
    ),
)
@pytest.mark.parametrize("side", ["prefill", "decode"])
def test_rtr_101(router_lab: LabFactory, side: str) -> None:
    """A router without a living prefill or without a living decode worker is not ready.

    Half a pair serves nothing, yet readiness counted workers. Look at whether it asks for one of each role.
    """
    lab = pair_lab(router_lab, needs=("readiness", "health"))
    workers = lab.prefills if side == "prefill" else lab.decodes
    for worker in workers:
        worker.kill()
    lab.await_readiness(503)
    reply = lab.send("would you serve me").reply
    assert reply.status >= 500, f"every {side} worker is dead, yet a request got {reply.shown}"
    for worker in workers:
        worker.revive()
    lab.await_readiness(200, len(lab.workers))
    lab.send("and now").reply.expect(200)
