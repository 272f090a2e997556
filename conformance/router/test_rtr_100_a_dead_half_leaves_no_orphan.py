"""RTR-100."""

from __future__ import annotations

import pytest

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.conformance.router.pairs import GIVEN_UP, PATIENCE, halves, pair_lab
from gaugeblock.fixtures.targets.router import RouterLab, Sent
from gaugeblock.fixtures.workers.script import Answer

REQUESTS = 8
WORK = 0.2  # seconds of prefill, so that one that nobody waits for can be called off


@check(
    "RTR-100",
    feature="pd",
    bound="exact: every request is served, by one generation; what a failed attempt left is called off within 3 s",
    sources=(
        "https://github.com/radixark/miles/issues/1334",
        "https://github.com/NVIDIA-NeMo/RL/issues/3613",
    ),
)
@pytest.mark.parametrize("side", ["prefill", "decode"])
def test_rtr_100(router_lab: LabFactory, side: str) -> None:
    """A worker that has just died costs no request while its side has another, and leaves no half at work.

    A retry with another pair starts a second generation while the first one's living half goes on. Look at whether the
    other half of a failed attempt is told, and whether receipts name the pair that served.
    """
    lab = pair_lab(router_lab, needs=("retries",))
    (lab.prefills if side == "prefill" else lab.decodes)[0].kill()
    for worker in lab.prefills:
        worker.always(Answer(delay=WORK))
    sent = lab.together(REQUESTS, "request")  # before a health check can say what has happened
    failed = [one.reply.shown for one in sent if one.reply.status != 200]
    assert not failed, f"{len(failed)} of {REQUESTS} requests failed beside a healthy {side} worker: {failed[0]}"
    ended = [arrival for one in sent for arrival in one.arrivals]
    lab.loop.wait_for(lambda: all(a.ended for a in ended), PATIENCE, lambda: f"halves still at work: {_running(lab)}")
    for one in sent:
        for half in halves(lab, one.arrivals):
            whole = [arrival.worker for arrival in half if arrival.ended not in (*GIVEN_UP, "cut")]
            assert len(whole) == 1, (
                f"one request was generated {len(whole)} times: {whole} of {len(one.arrivals)} arrivals"
            )
    _check_receipts(lab, sent)


def _running(lab: RouterLab) -> list[str]:
    return [arrival.worker for arrival in lab.arrivals() if not arrival.ended]


def _check_receipts(lab: RouterLab, sent: list[Sent]) -> None:
    """A router that names both workers names those that served."""
    header, other = lab.launcher.receipt_header, lab.launcher.prefill_receipt_header
    if header is None or other is None:
        return
    for one in sent:
        served = tuple(lab.worker(half[-1].worker).url for half in halves(lab, one.arrivals))
        named = (one.reply.headers.get(other), one.reply.headers.get(header))
        assert named == served, f"the receipts {other} and {header} name {named}, but {served} served"
