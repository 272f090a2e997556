"""RTR-052."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from gaugeblock.conformance.check import check
from gaugeblock.conformance.engine.evidence import Note
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.fixtures.workers.script import Answer

REQUESTS, LIMIT, PATIENCE = 60, 3, 8.0


@check(
    "RTR-052",
    feature="power-of-two",
    bound="a stuck worker gets at most 3 of 60: it loses every comparison from its first request on, the other 2 are "
    "for races; random choice gives it 20, and at most 3 with probability 2e-8",
    sources=(
        "https://github.com/sgl-project/sglang/issues/32070",
        "https://github.com/smg-project/smg/pull/1683",
    ),
)
def test_rtr_052(router_lab: LabFactory, note: Note) -> None:
    """Two random choices keep clear of a stuck worker, which one choice does not.

    The stuck worker went on getting its random share, or more. Look at which figures are compared: those of a poll are
    old when they are used, and every request until the next poll makes the same mistake.
    """
    lab = router_lab("power_of_two")
    stuck, gate = lab.workers[0], lab.gate()
    stuck.always(Answer(hold=gate))
    done: list[int] = []

    def one(number: int) -> None:
        done.append(lab.send(f"request {number}").reply.status)
        lab.loop.notify()

    with ThreadPoolExecutor(REQUESTS) as pool:
        try:
            for number in range(1, REQUESTS + 1):  # one after the other: only the stuck worker has anything in flight
                pool.submit(one, number)
                lab.loop.wait_for(
                    lambda number=number: len(done) + stuck.in_flight >= number,  # type: ignore[misc] # bound per loop
                    PATIENCE,
                    lambda: f"each request answered or stuck: {len(done)} answered, {lab.counts()}",
                )
            held, counts = stuck.in_flight, lab.counts()
        finally:
            gate.open()
    note(f"a stuck worker got {held} of {REQUESTS}; spread {counts}")
    assert held <= LIMIT, f"a stuck worker was chosen for {held} of {REQUESTS} requests by two choices: {counts}"
    assert done == [200] * REQUESTS, f"some requests failed: {sorted(set(done))}"
    assert all(count > REQUESTS / 10 for name, count in counts.items() if name != stuck.name), f"spread {counts}"
