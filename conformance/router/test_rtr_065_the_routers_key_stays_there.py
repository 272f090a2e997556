"""RTR-065."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.fixtures.targets.router_words import ADMIN_KEY, API_KEY, WORKER_KEY

SPELLINGS = (f"Bearer {API_KEY}", f"bearer {API_KEY}", f"BEARER {API_KEY}")

REQUESTS = 6


@check(
    "RTR-065",
    feature="worker-keys",
    level="extended",
    bound="exact: no key of the router in anything that reaches a worker, the workers' own key on every generation",
    sources=("https://github.com/sgl-project/sglang/pull/27048", "https://github.com/kcolemangt/llm-router/issues/13"),
)
def test_rtr_065(router_lab: LabFactory) -> None:
    """The key that lets a client into the router does not reach the workers; they get their own.

    Whoever runs one worker could use the router as every client does. Look at what is stripped before a request is
    forwarded, and at retries and health checks too.
    """
    lab = router_lab(needs=("auth", "worker-keys"), keys=True)
    for number in range(REQUESTS):
        headers = {"authorization": SPELLINGS[number % len(SPELLINGS)]}
        lab.send(f"turn {number}", stream=number % 2 == 1, headers=headers).reply.expect(200)
    arrivals = [arrival for worker in lab.workers for arrival in (*worker.requests, *worker.calls)]
    leaks = [arrival for arrival in arrivals if any(key.encode() in arrival.head for key in (API_KEY, ADMIN_KEY))]
    assert not leaks, f"the router's key reached {leaks[0].worker} with {leaks[0].method} {leaks[0].target}"
    other = [a.header("authorization") for a in lab.arrivals() if a.header("authorization") != f"Bearer {WORKER_KEY}"]
    assert not other, (
        f"the workers have a key of their own, but got {other[0]!r} with {len(other)} of {REQUESTS} generations"
    )
