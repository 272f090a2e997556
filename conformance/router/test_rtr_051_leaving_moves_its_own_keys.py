"""RTR-051."""

from __future__ import annotations

from collections import Counter

from gaugeblock.conformance.check import check
from gaugeblock.conformance.engine.evidence import Note
from gaugeblock.conformance.router.keys import homes_of, moves, new_keys, remove, settled_homes, shown
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.conformance.router.texts import largest_share

KEYS, SHARE = 120, 0.9


@check(
    "RTR-051",
    feature="consistent-hash",
    bound="exact: no key of the workers that stay moves. Of the 40 or so that must, at most 9/10 go to one of the two "
    "left: a fair hash exceeds that with probability 2e-6",
    sources=("https://github.com/envoyproxy/gateway/issues/7561",),
)
def test_rtr_051(router_lab: LabFactory, note: Note) -> None:
    """A worker that leaves moves its own keys only, and they spread over those that stay.

    Keys of workers that stayed moved too, or one neighbour got everything. Look at whether a place in a list of workers
    goes into the hash, and at how many points a worker has on the ring.
    """
    lab = router_lab("consistent_hash", needs=("worker-admin", "readiness"), fresh=True)
    keys = new_keys(lab, KEYS)
    before = settled_homes(lab, keys)
    gone = lab.workers[0]
    remove(lab, gone.url)
    lab.await_readiness(200, healthy=2)
    moved = moves(before, homes_of(lab, keys, 3))
    note(f"moved: {shown(moved)}")
    stray = sum(count for (one, _), count in moved.items() if one != gone.name)
    assert not stray, f"{stray} keys moved that did not live on the worker that left: {shown(moved)}"
    heirs = Counter({to: count for (_, to), count in moved.items()})
    assert largest_share(heirs) <= SHARE, f"one worker inherited nearly all keys of {gone.name}: {shown(moved)}"
