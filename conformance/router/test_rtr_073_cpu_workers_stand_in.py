"""RTR-073."""

from __future__ import annotations

from collections.abc import Iterator

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.fixtures.targets.router import RouterLab, Sent

REQUESTS = 20
SESSIONS = 5


@check(
    "RTR-073",
    feature="cpu-fallback",
    level="extended",
    bound=f"exact: 0 of {REQUESTS} requests at the CPU worker while the GPU worker lives, all {REQUESTS} while it is "
    "dead, 0 again once it is healthy",
    sources=(
        "https://github.com/kgateway-dev/kgateway/issues/13643",
        "https://github.com/kubernetes-sigs/gateway-api/issues/1802",
    ),
)
def test_rtr_073(router_lab: LabFactory) -> None:
    """A CPU worker serves only while no GPU worker can, and no longer.

    It is ten times slower. Look at whether it takes part in balancing, at what happens before the first health check
    fails, and at sessions that stay with their stand-in.
    """
    lab = router_lab("session", needs=("cpu-fallback", "readiness"), workers=2, tiers=("gpu", "cpu"), fresh=True)
    gpu, cpu = lab.workers
    _all_served(_turns(lab), "while both live")
    assert not cpu.requests, f"the CPU worker got {len(cpu.requests)} of {REQUESTS} requests while the GPU worker lived"
    gpu.kill()
    _all_served(_turns(lab), "while the GPU worker is dead")
    assert len(cpu.requests) == REQUESTS, f"the CPU worker served {len(cpu.requests)} of {REQUESTS} requests"
    gpu.revive()
    lab.await_readiness(200, healthy=2)
    before = len(cpu.requests)
    _all_served(_turns(lab), "after the GPU worker's return")
    late = len(cpu.requests) - before
    assert not late, f"the CPU worker still got {late} of {REQUESTS} requests after the GPU worker's return"


def _turns(lab: RouterLab) -> Iterator[Sent]:
    for number in range(REQUESTS):
        session = f"stand-in-{number % SESSIONS}" if number % 2 else None
        yield lab.send(f"turn {number}", session=session, stream=number % 3 == 0)


def _all_served(turns: Iterator[Sent], when: str) -> None:
    failed = [sent.reply.shown for sent in turns if sent.reply.status != 200]
    assert not failed, f"{len(failed)} of {REQUESTS} requests failed {when}: {failed[0]}"
