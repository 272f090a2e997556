"""RTR-120."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.fixtures.targets.router import RouterLab

REQUESTS = 10


@check(
    "RTR-120",
    feature="quality-floor",
    level="extended",
    bound=f"exact: 0 of {REQUESTS} requests for bf16 or better at the INT8 worker, whatever happens to the other one",
    sources=(
        "https://github.com/BerriAI/litellm/issues/19077",
        "https://github.com/agentgateway/agentgateway/issues/1361",
    ),
)
def test_rtr_120(router_lab: LabFactory) -> None:
    """A request that asks for a quality is kept off workers below it, also when it falls back

    Look at retries and stand-ins: what the client asked for must be looked at again. A floor that no worker reaches is
    the client's error; one that no worker reaches just now is not.
    """
    lab = router_lab(
        needs=("quality-floor", "cpu-fallback", "readiness"),
        workers=2,
        tiers=("gpu", "cpu"),
        qualities=("bf16", "int8"),
        fresh=True,
    )
    gpu, cpu = lab.workers
    for number in range(REQUESTS):
        _ask(lab, "bf16", number, 200)
        _ask(lab, "int8", number, 200)
    assert not cpu.requests, f"the INT8 worker served {len(cpu.requests)} requests while the bf16 worker had room"
    status = lab.send("exact", headers={lab.launcher.floor_header: "fp32"}).reply.status
    assert 400 <= status < 500, f"a floor that no worker reaches is answered {status}"
    gpu.kill()
    for number in range(REQUESTS):
        _ask(lab, "bf16", number, 503)
        if number == 1:  # the first are retries, the others find it out of rotation
            lab.await_readiness(200, healthy=1)
    marked = [arrival for arrival in cpu.requests if b"bf16" in arrival.body]
    assert not marked, f"{len(marked)} of {REQUESTS} requests for bf16 or better were served in INT8"
    _ask(lab, "int8", 0, 200)
    assert cpu.requests, "the INT8 worker does not stand in: nothing was checked"


def _ask(lab: RouterLab, floor: str, number: int, status: int) -> None:
    reply = lab.send(f"{floor} {number}", headers={lab.launcher.floor_header: floor}).reply
    tell = "is served" if status == 200 else "has no worker now"
    assert reply.status == status or (status == 503 and reply.status >= 500), (
        f"a request for {floor} or better {tell}, and was answered {reply.shown}"
    )
