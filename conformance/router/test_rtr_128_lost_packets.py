"""RTR-128."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.engine.evidence import Note
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.fixtures.hosts.network import Link

LOSS, CLIENTS, ROUNDS = 0.15, 12, 8


@check(
    "RTR-128",
    feature="proxy",
    level="extended",
    bound="exact: no request goes to a second worker, and at least 93 of 96 are answered",
    sources=("https://github.com/radixark/miles/issues/1334",),
    timeout=90.0,
)
def test_rtr_128(router_lab: LabFactory, note: Note) -> None:
    """Lost packets delay requests and double none.

    A request that was only slow was sent to a second worker: both generate it, and the load rises just when the network
    is bad. Look at what counts as a failure; a silence shorter than the time-outs is none.
    """
    lab = router_lab.hosts()
    lab.together(CLIENTS, "warm up")  # what is lost later is not the beginning of a connection
    for worker in lab.workers:
        worker.requests.clear()
        lab.shape(worker, Link(loss=LOSS))
    sent = [one for number in range(ROUNDS) for one in lab.together(CLIENTS, f"round {number}")]
    for worker in lab.workers:
        lab.shape(worker, Link())
    slow = sum(one.reply.seconds > 0.15 for one in sent)
    note(f"{lab.network.lost} packets lost; {slow} of {len(sent)} requests took more than 0.15 s")
    doubled = [one for one in sent if len({arrival.worker for arrival in one.arrivals}) > 1]
    shown = [(arrival.worker, arrival.ended) for arrival in doubled[0].arrivals] if doubled else ""
    assert not doubled, (
        f"{len(doubled)} of {len(sent)} requests went to more than one worker, none of which failed: {shown}"
    )
    failed = [one.reply.shown for one in sent if one.reply.status != 200]
    assert len(failed) <= 3, f"{len(failed)} of {len(sent)} requests failed over links that lose packets: {failed[0]}"
    assert lab.network.lost, "no packet was lost, and nothing was shown"
