"""RTR-089."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.engine.evidence import Note
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.conformance.router.queues import Crowd, Turnstile
from gaugeblock.fixtures.targets.router import RouterLab
from gaugeblock.fixtures.workers.script import Answer

TARGET, SLOW, OFFERED, ROUND, WAVES = 0.1, 0.3, 24, 10, 4


@check(
    "RTR-089",
    feature="adaptive-limit",
    level="extended",
    bound="under 3 times the target latency the limit at least halves within 4 waves; at none it grows again within 60",
    sources=(
        "https://github.com/Netflix/concurrency-limits/pull/81",
        "https://www.rfc-editor.org/rfc/rfc5681#section-3.1",
    ),
)
def test_rtr_089(router_lab: LabFactory, note: Note) -> None:
    """The limit of a worker shrinks while it is slow and grows back when it is fast.

    A limit that never moves is a guess; one that only shrinks ends at one request at a time. Look at which latency is
    compared with the target, and at what a window without trouble does.
    """
    lab = router_lab(needs=("adaptive-limit", "loads"), workers=1, adaptive_target=TARGET, fresh=True)
    start = _limit(lab)
    for _ in range(WAVES):
        _wave(lab, SLOW, ROUND)
    small = _limit(lab)
    assert small <= start / 2, (
        f"after {WAVES} waves at {SLOW:g} s where {TARGET:g} s is the target, the worker still gets {small} at a time "
        f"({start} before)"
    )
    for wave in range(60):
        _wave(lab, 0.0, OFFERED)
        if wave % 6 == 5 and _limit(lab) > small:
            break
    grown = _limit(lab)
    note(f"limit {start}, then {small} under {SLOW:g} s, then {grown}")
    assert grown > small, f"after 60 waves of fast answers the worker still gets {grown} at a time"


def _limit(lab: RouterLab) -> int:
    """Return how many requests the worker gets at a time: all that come while none is answered."""
    gates = Turnstile(lab, OFFERED)
    with Crowd(lab) as crowd:
        for number in range(OFFERED):
            crowd.send(str(number))
        crowd.settle()
        seen = lab.loads()["w0"] or 0  # the worker itself may be behind with reading them
        gates.await_arrivals(seen)
        lab.workers[0].always(Answer())
        gates.open()
        crowd.statuses()
    return seen


def _wave(lab: RouterLab, latency: float, count: int) -> None:
    lab.workers[0].always(Answer(delay=latency))
    with Crowd(lab) as crowd:
        for number in range(count):
            crowd.send(str(number))
        crowd.statuses()
