"""RTR-115."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory

CYCLES, REQUESTS = 20, 6


@check(
    "RTR-115",
    feature="retries",
    bound="exact: 240 of 240 requests beside 2 healthy workers",
    sources=("https://github.com/vllm-project/router/pull/60", "https://github.com/NVIDIA-NeMo/RL/issues/3613"),
)
def test_rtr_115(router_lab: LabFactory) -> None:
    """A worker that dies and returns again and again costs no request.

    Each death was survived, many in a row were not: retries run out, or what is known of the dead worker is used for
    the living one. Look at what refills the budget of retries and at connections kept over a death.
    """
    lab = router_lab(needs=("retries",))
    flapping = lab.workers[0]
    failed: list[str] = []
    for cycle in range(CYCLES):
        flapping.kill()
        sent = [lab.send(f"down {cycle} {number}") for number in range(REQUESTS)]
        flapping.revive()
        sent += [lab.send(f"up {cycle} {number}") for number in range(REQUESTS)]
        failed += [f"cycle {cycle}: {one.reply.shown}" for one in sent if one.reply.status != 200]
    total = 2 * CYCLES * REQUESTS
    assert not failed, f"{len(failed)} of {total} requests failed while one of 3 workers came and went: {failed[0]}"
