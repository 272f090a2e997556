"""RTR-050."""

from __future__ import annotations

import json

from gaugeblock.conformance.check import check
from gaugeblock.conformance.engine.evidence import Note
from gaugeblock.conformance.router.keys import homes_of, moves, new_keys, settled_homes, shown
from gaugeblock.conformance.router.labs import LabFactory

KEYS, LEAST, MOST = 160, 8, 80


@check(
    "RTR-050",
    feature="consistent-hash",
    bound="8 to 80 of 160 keys move, all to the new worker: 1/4 of them is 40 with deviation 5.5 under a perfect hash, "
    "a ring of few points doubles that; a hash modulo the number of workers moves 120",
    sources=("https://github.com/envoyproxy/gateway/issues/7561",),
)
def test_rtr_050(router_lab: LabFactory, note: Note) -> None:
    """A fourth worker takes about a quarter of the keys, and no other key moves.

    Every key that moves leaves its KV cache behind. Look at what is hashed: the key with each worker's id, not the key
    modulo the number of workers, nor a place in a list.
    """
    lab = router_lab("consistent_hash", needs=("worker-admin", "readiness"), fresh=True)
    keys = new_keys(lab, KEYS)
    before = settled_homes(lab, keys)
    spare = lab.spare()
    reply = lab.wire.call("POST", "/workers", json.dumps({"url": spare.url}).encode())
    assert 200 <= reply.status < 300, f"POST /workers answered {reply.shown}"
    lab.await_readiness(200, healthy=4)
    moved = moves(before, homes_of(lab, keys, 3))
    count = sum(moved.values())
    note(f"{count} of {KEYS} keys moved: {shown(moved)}")
    assert count <= MOST, f"a fourth worker moved {count} of {KEYS} keys, about {KEYS // 4} have to: {shown(moved)}"
    stray = sum(n for (_, to), n in moved.items() if to != spare.name)
    assert not stray, f"{stray} keys moved between workers that were there before: {shown(moved)}"
    assert count >= LEAST, f"a fourth worker got {count} of {KEYS} keys"
