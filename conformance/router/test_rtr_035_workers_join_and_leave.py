"""RTR-035."""

from __future__ import annotations

import json
from urllib.parse import quote

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.fixtures.errors import TargetFault
from gaugeblock.fixtures.targets.router import RouterLab

REQUESTS = 24


@check(
    "RTR-035",
    feature="worker-admin",
    level="extended",
    bound="at least 1 of 24 requests of a round robin over 3 once it is healthy; exactly 0 of 24 once it is gone",
    sources=("https://github.com/envoyproxy/gateway/issues/7561",),
)
def test_rtr_035(router_lab: LabFactory) -> None:
    """A worker can join and leave at run time.

    It was accepted and never used, or removed and still used. Look at when a new worker is first checked, and at what
    holds on to a removed one (connections, pins, prefix tree).
    """
    lab = router_lab(needs=("worker-admin", "readiness"), workers=2, fresh=True)
    spare = lab.spare()
    reply = lab.wire.call("POST", "/workers", json.dumps({"url": spare.url}).encode())
    assert 200 <= reply.status < 300, f"POST /workers answered {reply.shown}"
    lab.await_readiness(200, healthy=3)
    _send(lab)
    assert spare.requests, f"a worker that joined got none of {REQUESTS} requests"
    reply = lab.wire.call("DELETE", f"/workers/{quote(_id_of(lab, spare.url), safe='')}")
    assert 200 <= reply.status < 300, f"DELETE /workers/{{id}} answered {reply.shown}"
    lab.await_readiness(200, healthy=2)
    before = len(spare.requests)
    _send(lab)
    assert len(spare.requests) == before, f"a removed worker got {len(spare.requests) - before} of {REQUESTS} requests"


def _send(lab: RouterLab) -> None:
    for number in range(REQUESTS):
        lab.send(f"request {number}").reply.expect(200)


def _id_of(lab: RouterLab, url: str) -> str:
    reply = lab.wire.call("GET", "/workers").expect(200)
    workers = reply.json()["workers"]
    found = [str(worker["id"]) for worker in workers if str(worker.get("url", "")).rstrip("/") == url]
    if not found:
        raise TargetFault(f"GET /workers does not list the worker that joined: {reply.shown}")
    return found[0]
