"""RTR-006."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory

REQUESTS = 12


@check(
    "RTR-006",
    feature="retries",
    bound="exact: no failure, since nothing of an answer has been sent when a connection is refused",
    sources=("https://github.com/NVIDIA-NeMo/RL/issues/3613", "https://github.com/vllm-project/router/pull/60"),
)
def test_rtr_006(router_lab: LabFactory) -> None:
    """A worker that has just died costs no request while others are healthy.

    Clients saw errors that the router could have hidden: a refused connection is safe to retry elsewhere. Look at what
    counts as retryable and whether the health check is the only thing that notices a dead worker.
    """
    lab = router_lab(needs=("retries",))
    lab.workers[0].kill()
    sent = [lab.send(f"request {number}") for number in range(REQUESTS)]
    failed = [one.reply.shown for one in sent if one.reply.status != 200]
    assert not failed, (
        f"{len(failed)} of {REQUESTS} requests failed beside 2 healthy workers after one died: {failed[0]}"
    )
