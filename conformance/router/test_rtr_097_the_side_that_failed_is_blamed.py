"""RTR-097."""

from __future__ import annotations

from typing import Any

import pytest

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.conformance.router.pairs import await_healthy, pair_lab
from gaugeblock.fixtures.workers.script import RESET_AT_ONCE, Answer

FAILURES, AFTERWARDS = 3, 6
KINDS = {"500": Answer(status=500), "reset": RESET_AT_ONCE}


@check(
    "RTR-097",
    feature="pd",
    bound="exact: after 5 faults in a row, 2 more than open a breaker, every request is served by the healthy pair",
    sources=(
        "https://github.com/sgl-project/sglang/issues/31206",
        "https://github.com/sgl-project/sglang/issues/12355",
    ),
)
@pytest.mark.parametrize("side", ["prefill", "decode"])
@pytest.mark.parametrize("kind", list(KINDS))
def test_rtr_097(router_lab: LabFactory, kind: str, side: str) -> None:
    """A worker that keeps failing loses its traffic, and its healthy partner on the other side does not.

    Both halves were scored by the client's status: one bad prefill worker opened the breakers of every decode worker,
    and nobody was left to serve. Look at which result each breaker is told.
    """
    counts: dict[str, Any] = {"prefill": 2, "decode": 1} if side == "prefill" else {"prefill": 1, "decode": 2}
    needs = ("breakers", "health", "readiness")
    lab = pair_lab(router_lab, needs=needs, breaker_failures=FAILURES, fresh=True, **counts)
    failing, spare = lab.prefills if side == "prefill" else lab.decodes
    failing.always(KINDS[kind])
    spare.health = "down"  # out of the way, so that the faults of the other one come in a row
    await_healthy(lab, len(lab.workers) - 1)
    for number in range(FAILURES + 2):
        lab.send(f"request {number}")
    assert failing.requests, f"no request reached the failing {side} worker: there was nothing to judge"
    spare.health = "up"
    await_healthy(lab, len(lab.workers))
    for number in range(AFTERWARDS):
        reply = lab.send(f"afterwards {number}").reply
        assert reply.status == 200, (
            f"one of 2 {side} workers fails ({kind}) and the other side is healthy, yet request {number + 1} of "
            f"{AFTERWARDS} failed: {reply.shown}; arrivals {lab.counts()}"
        )
