"""Which worker serves which session key: what consistent hashing is judged by."""

from __future__ import annotations

import random
from collections import Counter
from urllib.parse import quote

from gaugeblock.fixtures.errors import TargetFault
from gaugeblock.fixtures.targets.router import RouterLab

Homes = dict[str, str]


def new_keys(lab: RouterLab, count: int) -> list[str]:
    """Return session keys that nobody has used yet."""
    mark = lab.mark()
    return [f"key-{mark}-{number}" for number in range(count)]


def homes_of(lab: RouterLab, keys: list[str], seed: int) -> Homes:
    """Return the worker of each key, asked one after the other in an order of its own: no load, nothing to count on."""
    order = random.Random(seed).sample(keys, len(keys))
    return {key: lab.send("next turn", session=key).worker for key in order}


def settled_homes(lab: RouterLab, keys: list[str]) -> Homes:
    """Return the homes of keys, after a look that they have any.

    Raises:
        AssertionError: keys went elsewhere at their second turn although no worker came or left.
    """
    first, second = homes_of(lab, keys, 1), homes_of(lab, keys, 2)
    torn = [key for key in keys if first[key] != second[key]]
    assert not torn, f"{len(torn)} of {len(keys)} keys moved although no worker came or left: there is no hash to judge"
    assert len(set(first.values())) > 1, f"all {len(keys)} keys live on {set(first.values())}"
    return first


def moves(before: Homes, after: Homes) -> Counter[tuple[str, str]]:
    """Return how many keys went from which worker to which."""
    return Counter((before[key], after[key]) for key in before if before[key] != after[key])


def shown(moved: Counter[tuple[str, str]]) -> str:
    """Return moves for a message."""
    return ", ".join(f"{one} to {other}: {count}" for (one, other), count in sorted(moved.items())) or "none"


def remove(lab: RouterLab, url: str) -> None:
    """Take a worker out at run time.

    Raises:
        TargetFault: the router does not list it, or refuses.
    """
    listed = lab.wire.call("GET", "/workers").expect(200).json()["workers"]
    found = [str(worker["id"]) for worker in listed if str(worker.get("url", "")).rstrip("/") == url]
    if not found:
        raise TargetFault(f"GET /workers does not list {url}: {listed}")
    reply = lab.wire.call("DELETE", f"/workers/{quote(found[0], safe='')}")
    if not 200 <= reply.status < 300:
        raise TargetFault(f"DELETE /workers/{{id}} answered {reply.shown}")
