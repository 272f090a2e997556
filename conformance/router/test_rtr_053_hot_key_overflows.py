"""RTR-053."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from gaugeblock.conformance.check import check
from gaugeblock.conformance.engine.evidence import Note
from gaugeblock.conformance.router.keys import new_keys
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.conformance.router.texts import largest_share
from gaugeblock.fixtures.workers.script import Answer

REQUESTS, LIMIT, PATIENCE = 96, 2 / 3, 8.0


@check(
    "RTR-053",
    feature="bounded-load",
    bound="no worker holds more than 2/3 of 96 requests at once, twice its fair share: factors in use are 1.1 to 2",
    sources=(
        "https://github.com/envoyproxy/gateway/issues/7561",
        "https://github.com/sgl-project/sglang/issues/32195",
    ),
)
def test_rtr_053(router_lab: LabFactory, note: Note) -> None:
    """A hot key overflows to other workers while its own has more than its share, and comes home afterwards.

    All requests of one key queued on one worker, or the key stayed away when it had room again. Look at the bound of
    the load, and at whether an overflow changes anything that lasts.
    """
    lab = router_lab("consistent_hash", needs=("bounded-load",))
    key = new_keys(lab, 1)[0]
    home = lab.send("warm up", session=key).worker
    gate = lab.gate()
    for worker in lab.workers:
        worker.requests.clear()
        worker.always(Answer(hold=gate))
    with ThreadPoolExecutor(REQUESTS) as pool:
        futures = [pool.submit(lab.send, "next turn", session=key) for _ in range(REQUESTS)]
        try:
            lab.loop.wait_for(
                lambda: len(lab.arrivals()) >= REQUESTS,
                PATIENCE,
                lambda: f"{REQUESTS} concurrent requests at the workers; {len(lab.arrivals())} came: {lab.counts()}",
            )
            counts = lab.counts()
        finally:
            gate.open()
        statuses = {future.result().reply.status for future in futures}
    note(f"{REQUESTS} concurrent requests of one key: {counts}")
    assert statuses == {200}, f"some of {REQUESTS} concurrent requests failed: {statuses}"
    assert largest_share(counts) <= LIMIT, f"{REQUESTS} concurrent requests of one key queued on one worker: {counts}"
    away = [worker for worker in (lab.send("later", session=key).worker for _ in range(8)) if worker != home]
    assert not away, f"{len(away)} of 8 later requests of the key went elsewhere than home ({home}): {away}"
