"""RTR-055."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

from gaugeblock.conformance.check import check
from gaugeblock.conformance.engine.evidence import Note
from gaugeblock.conformance.outcome import beyond, inconclusive
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.fixtures.memory import can_measure, resident_bytes
from gaugeblock.fixtures.targets.router import CHAT, RouterLab

CLIENTS, SIZE, PROMPTS = 2, 32 << 10, 700  # SIZE in bytes
INDEX = 4 << 20
LIMIT = PROMPTS * SIZE // 2


@check(
    "RTR-055",
    feature="cache-aware",
    level="extended",
    bound="of two times 700 unique prompts of 32 KB, 23 MB, the second adds less than half of that to the router's "
    "memory, whose index may hold 4 MB: a router that keeps prompts grows by all of it each time, one that evicts now "
    "and then has the room from the first time",
    sources=("https://github.com/sgl-project/sglang/issues/16734",),
)
def test_rtr_055(router_lab: LabFactory, note: Note) -> None:
    """Prompts that share nothing do not grow the router's memory for ever.

    It kept what nobody will ask for again, until the machine ends it. Look at whether the index counts its bytes,
    whether anything is evicted before the next timer, and what else holds on to a request's body.
    """
    lab = router_lab("cache_aware", fresh=True, index_bytes=INDEX)
    if not can_measure():
        beyond("the memory of another process can be read on Linux only")
    group = lab.server.process.pid
    _pour(lab, PROMPTS)
    before = resident_bytes(group)
    _pour(lab, PROMPTS)
    grown = resident_bytes(group) - before
    note(f"{before / 1e6:.1f} MB after {PROMPTS} prompts of {SIZE >> 10} KB, {grown / 1e6:+.1f} MB after as many more")
    assert grown <= LIMIT, f"{PROMPTS * SIZE / 1e6:.0f} MB of unique prompts grew the router by {grown / 1e6:.1f} MB"


def _pour(lab: RouterLab, count: int) -> None:
    rng = random.Random(lab.mark())
    bodies = (lab.body(rng.randbytes(SIZE // 2).hex()) for _ in range(count))
    with ThreadPoolExecutor(CLIENTS) as pool:
        statuses = set(pool.map(lambda body: lab.wire.call("POST", CHAT, body).status, bodies))
    if statuses != {200}:
        inconclusive(f"some of {count} requests failed ({statuses}): what was refused need not be remembered")
    for worker in lab.workers:
        worker.requests.clear()
