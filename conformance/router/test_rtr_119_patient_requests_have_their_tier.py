"""RTR-119."""

from __future__ import annotations

from collections import Counter

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.fixtures.targets.router import RouterLab

REQUESTS = 12


@check(
    "RTR-119",
    feature="band-tiers",
    level="extended",
    bound=f"exact: {REQUESTS} patient requests at the CPU worker and as many urgent and plain ones at the GPU worker "
    "while both live; each kind at the other while its own is dead",
    sources=(
        "https://github.com/kgateway-dev/kgateway/issues/13643",
        "https://github.com/vllm-project/vllm/issues/24365",
    ),
)
def test_rtr_119(router_lab: LabFactory) -> None:
    """Patient requests go to CPU workers first, urgent ones to GPU workers, and each stands in for the other

    Look at what is done with a priority where nothing waits in a queue, and at requests that name none.
    """
    lab = router_lab(
        needs=("band-tiers", "cpu-fallback", "readiness"),
        workers=2,
        tiers=("gpu", "cpu"),
        low_tiers=("cpu", "gpu"),
        fresh=True,
    )
    gpu, cpu = lab.workers
    for band, worker in (("low", "w1"), ("high", "w0"), (None, "w0")):
        _expect(lab, band, worker, "while both workers live")
    cpu.kill()
    _expect(lab, "low", "w0", "while the CPU worker is dead")
    cpu.revive()
    lab.await_readiness(200, healthy=2)
    gpu.kill()
    _expect(lab, "high", "w1", "while the GPU worker is dead")


def _expect(lab: RouterLab, band: str | None, worker: str, when: str) -> None:
    headers = {} if band is None else dict([lab.launcher.bands[band]])
    served = Counter(lab.send(f"{band} {n}", headers=headers).worker for n in range(REQUESTS))
    assert served == {worker: REQUESTS}, (
        f"{when} requests of priority {band or 'unnamed'} belong to {worker}, and went to {dict(served)}; "
        "w0 is the GPU worker, w1 the CPU worker"
    )
