"""RTR-127."""

from __future__ import annotations

from statistics import median

from gaugeblock.conformance.check import check
from gaugeblock.conformance.engine.evidence import Note
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.fixtures.hosts.network import Link

DELAY, CLIENTS, ROUNDS, LIMIT = 0.05, 9, 3, 0.05


@check(
    "RTR-127",
    feature="proxy",
    level="extended",
    bound="the median of the other workers' requests stays below 50 ms: a round trip to the distant one takes 100 ms, "
    "a new connection two of them; without it they take milliseconds",
    sources=("https://github.com/vllm-project/production-stack/issues/749",),
    timeout=60.0,
)
def test_rtr_127(router_lab: LabFactory, note: Note) -> None:
    """A worker far away delays its own requests alone.

    With one worker in another zone everybody's requests became slower. Look for what is done for one worker at a time:
    connecting, asking for health or load, waiting for an answer under a lock.
    """
    lab = router_lab.hosts()
    distant = lab.workers[0]
    lab.shape(distant, Link(delay=DELAY))
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(ROUNDS):
        for sent in lab.together(CLIENTS, "from near and far"):
            sent.reply.expect(200)
            seconds[sent.worker == distant.name].append(sent.reply.seconds)
    assert seconds[True], f"no request went to the distant worker: {lab.counts()}"
    assert seconds[False], f"every request went to the distant worker: {lab.counts()}"
    far, near = median(seconds[True]), median(seconds[False])
    note(f"median {1000 * near:.0f} ms near, {1000 * far:.0f} ms far; spread {lab.counts()}")
    assert far >= 2 * DELAY, f"the link was to add {2 * DELAY:g} s, yet the distant worker's median is {far:.3f} s"
    assert near < LIMIT, (
        f"requests of near workers take {1000 * near:.0f} ms (median of {len(seconds[False])}) beside one that is "
        f"{2000 * DELAY:.0f} ms away"
    )
