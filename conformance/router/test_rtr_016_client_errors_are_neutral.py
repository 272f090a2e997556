"""RTR-016."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.fixtures.workers.script import HEALTHY, Answer

FAILURES, BAD, GOOD = 3, 24, 9


@check(
    "RTR-016",
    feature="breakers",
    bound="exact: 9 of 9 good requests after 24 bad ones, 8 a worker with a threshold of 3",
    sources=(
        "https://github.com/sgl-project/sglang/issues/25811",
        "https://github.com/vllm-project/router/pull/60",
        "https://github.com/smg-project/smg/pull/2565",
    ),
)
def test_rtr_016(router_lab: LabFactory) -> None:
    """A client's bad requests take no worker out of rotation.

    Answers of 4xx opened the breakers, so that one client with a bad prompt can stop the fleet for everybody. Look at
    which statuses the breaker counts: a 4xx says nothing about the worker.
    """
    lab = router_lab(needs=("breakers",), breaker_failures=FAILURES, fresh=True)
    for worker in lab.workers:
        worker.always(Answer(status=400))
    statuses = [lab.send(f"bad {number}").reply.status for number in range(BAD)]
    for worker in lab.workers:
        worker.always(HEALTHY)
    good = [lab.send(f"good {number}").reply for number in range(GOOD)]
    refused = [reply.shown for reply in good if reply.status != 200]
    assert not refused, f"after {BAD} answers of 400, {len(refused)} of {GOOD} good requests were refused: {refused[0]}"
    assert set(statuses) == {400}, f"the workers answered 400 to each of {BAD} requests, the clients got {statuses}"
