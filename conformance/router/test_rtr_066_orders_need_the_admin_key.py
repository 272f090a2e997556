"""RTR-066."""

from __future__ import annotations

import json
from urllib.parse import quote

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.fixtures.targets.router_words import ADMIN_KEY


@check(
    "RTR-066",
    feature="admin-auth",
    level="extended",
    bound="exact: 401 or 403 for each order without a key or with a client's, and no effect; 2xx with the admin key",
    sources=("https://github.com/sgl-project/sglang/pull/10826", "https://cwe.mitre.org/data/definitions/306.html"),
)
def test_rtr_066(router_lab: LabFactory) -> None:
    """A client cannot give the router orders: workers join and leave only by the admin key.

    Whoever may add a worker gets other people's prompts. Look at which paths ask for which key.
    """
    lab = router_lab(needs=("auth", "admin-auth", "worker-admin", "readiness"), keys=True, workers=2, fresh=True)
    spare = lab.spare()
    join = json.dumps({"url": spare.url}).encode()
    leave = f"/workers/{quote(lab.workers[0].url, safe='')}"
    for who, wire in (("nobody", lab.stranger), ("a client", lab.wire)):
        for method, path, body in (("POST", "/workers", join), ("DELETE", leave, None), ("POST", "/flush_cache", b"")):
            reply = wire.call(method, path, body)
            assert reply.status in (401, 403), f"{method} {path} by {who}: 401 or 403 was due, got {reply.shown}"
    assert not spare.calls, "a worker that a client brought along is asked for its health"
    reply = lab.stranger.call("POST", "/workers", join, {"authorization": f"Bearer {ADMIN_KEY}"})
    assert reply.status // 100 == 2, f"with the admin key a worker could not join: {reply.shown}"
    lab.await_readiness(200, healthy=3)
