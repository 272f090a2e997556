"""RTR-122."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.conformance.router.queues import Crowd, Turnstile

CAP = 2


@check(
    "RTR-122",
    feature="band-tiers",
    level="extended",
    bound=f"exact: with {CAP} places a worker {CAP} urgent requests run at the GPU worker in a flood of patient ones, "
    "and the next takes the first place that is free at either",
    sources=(
        "https://github.com/vllm-project/vllm/pull/45561",
        "https://github.com/kubernetes-sigs/gateway-api-inference-extension/issues/1861",
    ),
)
def test_rtr_122(router_lab: LabFactory) -> None:
    """Overload of the GPU tier degrades urgent requests to the CPU; a patient flood takes no GPU worker's room

    The urgent go on at once instead of waiting behind a full tier, and return to it once there is room. Look at which
    room the queue is asked about, and at patient requests that are limited to their own tier.
    """
    lab = router_lab(
        needs=("band-tiers", "admission-cap", "priority", "queue"),
        workers=2,
        tiers=("gpu", "cpu"),
        low_tiers=("cpu",),
        worker_cap=CAP,
        priorities=True,
        fresh=True,
    )
    gates = Turnstile(lab, 12)
    with Crowd(lab) as crowd:
        for number in range(4 * CAP):
            crowd.enqueue(f"low-{number}", band="low")
        gates.await_arrivals(CAP)
        crowd.settle()
        came = [arrival.worker for arrival in gates.came]
        assert came == ["w1"] * CAP, f"a flood of patient requests, limited to the CPU worker w1, went to {came}"
        for number in range(CAP):
            crowd.enqueue(f"high-{number}", band="high")
        gates.await_arrivals(2 * CAP)
        came = [arrival.worker for arrival in gates.came[CAP:]]
        assert came == ["w0"] * CAP, f"in a flood of patient requests urgent ones went to {came}, not to w0"
        crowd.enqueue("over", band="high")
        gates.let(0)  # a place at the CPU worker
        gates.await_arrivals(2 * CAP + 1)
        names, workers = crowd.order(gates), [arrival.worker for arrival in gates.came]
        assert (names[-1], workers[-1]) == ("over", "w1"), (
            f"with the GPU worker full a free place at the CPU worker went to {names[-1]!r}, not to the urgent request"
        )
        crowd.enqueue("back", band="high")
        gates.let(CAP)  # a place at the GPU worker
        gates.await_arrivals(2 * CAP + 2)
        names, workers = crowd.order(gates), [arrival.worker for arrival in gates.came]
        assert (names[-1], workers[-1]) == ("back", "w0"), f"a free place at the GPU worker went to {names[-1]!r}"
        gates.open()
        statuses = crowd.statuses()
    assert set(statuses.values()) == {200}, f"some requests were lost: {statuses}"
