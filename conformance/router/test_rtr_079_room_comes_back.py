"""RTR-079."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.conformance.router.queues import PATIENCE, Crowd, Turnstile
from gaugeblock.fixtures.errors import TargetFault
from gaugeblock.fixtures.targets.router import RouterLab
from gaugeblock.fixtures.targets.wire import Limits
from gaugeblock.fixtures.workers.script import RESET_AT_ONCE, Answer, dies_after

ENDS = {"an error": 40, "resets": 5, "a dead stream": 25, "clients that left": 30}
"""How often each; resets are few because some routers try them again for a second."""
LIMITS = Limits(connect=2.0, idle=PATIENCE, total=PATIENCE)


@check(
    "RTR-079",
    feature="queue",
    bound="exact: 100 errors, resets, dead streams and departed clients, one at a time, and the next request is served",
    sources=(
        "https://github.com/Netflix/concurrency-limits/pull/81",
        "https://github.com/vllm-project/router/issues/215",
    ),
)
def test_rtr_079(router_lab: LabFactory) -> None:
    """Room in the router comes back however a request ends.

    With room for one, a single place that is lost stops everything. Look at which ways out of a request (an error, a
    retry, a stream that dies, a client that leaves) do not pass where the place is given back.
    """
    lab = router_lab(needs=("queue",), workers=2, max_concurrent=1, worker_cap=1)
    scripts = {"an error": Answer(status=500), "resets": RESET_AT_ONCE, "a dead stream": dies_after(1)}
    for end, script in scripts.items():
        for worker in lab.workers:
            worker.always(script)
        for number in range(ENDS[end]):
            _send(lab, f"{number} after {end}", stream=end == "a dead stream")
    leaving = ENDS["clients that left"]
    gates = Turnstile(lab, leaving)
    for number in range(leaving):
        with Crowd(lab) as crowd:
            crowd.send(f"leaves {number}")
            _await(gates, number + 1)
    for worker in lab.workers:
        worker.always(Answer())
    reply = _send(lab, "after clients that left")
    assert reply == 200, f"after {sum(ENDS.values())} requests that ended badly a good one got {reply}"


def _send(lab: RouterLab, what: str, *, stream: bool = False) -> int:
    try:
        return lab.send(what, stream=stream, limits=LIMITS).reply.status
    except TargetFault as fault:
        if "limit of the call" in str(fault):
            raise TargetFault(f"room for one request was lost: {what} nothing is served any more ({fault})") from None
        return 0  # the connection broke: an honest end of a stream that died


def _await(gates: Turnstile, count: int) -> None:
    try:
        gates.await_arrivals(count)
    except TargetFault as fault:
        what = "room for one request was lost: after clients that left nothing is served"
        raise TargetFault(f"{what} any more ({fault})") from None
