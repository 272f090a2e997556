"""RTR-056."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.router_policies import OwnPolicies
    from gaugeblock.reference.router.policies.base import Policy


@check(
    "RTR-056",
    feature="golden-routing",
    level="extended",
    bound="exact: worker, reason and predicted prefix of every arrival, under the trace's seed and clock",
    sources=(
        "https://github.com/smg-project/smg/pull/2576",
        "https://github.com/sgl-project/sglang/issues/16734",
        "https://github.com/sgl-project/sglang/issues/27547",
        "https://github.com/envoyproxy/gateway/issues/7561",
    ),
)
def test_rtr_056(own_policies: OwnPolicies, record_property: Callable[[str, object], None]) -> None:
    """Golden arrivals go where plain readings of each policy send them, in every release alike

    A policy that is a little wrong still spreads load and passes the other checks; a hash that changes between releases
    moves every session of a fleet whose routers are not all of one age. Look at the first arrival that differs: the
    golden file says what decides it.
    """
    from gaugeblock.conformance.golden import goldens

    seen: dict[str, int] = {}
    with goldens("routing") as files:
        for case in (case for file in files.values() for case in file):
            actual = _replay(own_policies.make(case["policy"], case["settings"]), case)
            assert actual == case["decisions"], _first_difference(case, actual)
            seen[case["policy"]] = seen.get(case["policy"], 0) + len(actual)
    missing = set(own_policies.names()) - set(seen)
    assert not missing, f"no golden trace for {', '.join(sorted(missing))}"
    assert min(seen.values()) > 20, f"decisions by policy {seen}: nothing was checked"
    counts = ", ".join(f"{name} {count}" for name, count in sorted(seen.items()))
    record_property("evidence", f"{sum(seen.values())} decisions: {counts}")


def _replay(policy: Policy, case: dict[str, Any]) -> list[list[Any]]:
    from gaugeblock.fixtures.goldens.routing import prompt_bytes
    from gaugeblock.reference.router.policies.base import RequestView, WorkerView

    rng = Random(case["seed"])
    decisions = []
    for arrival in case["arrivals"]:
        if "forget" in arrival:
            policy.forget(arrival["forget"])
            continue
        workers = [WorkerView(*worker) for worker in arrival["workers"]]
        prompt = prompt_bytes(arrival)
        request = RequestView(arrival.get("model"), arrival.get("session"), prompt, arrival.get("unit", 1))
        decision = policy.decide(request, workers, rng, arrival["at"])
        policy.record(request, decision, arrival["at"])
        decisions.append([decision.worker, decision.reason, decision.matched])
    return decisions


def _first_difference(case: dict[str, Any], actual: list[list[Any]]) -> str:
    requests = [arrival for arrival in case["arrivals"] if "forget" not in arrival]
    number = next(i for i, (one, other) in enumerate(zip(actual, case["decisions"], strict=True)) if one != other)
    (worker, reason, matched), (golden, why, predicted) = actual[number], case["decisions"][number]
    return (
        f"golden {case['id']}, request {number} ({requests[number]}): to {worker} ({reason}, {matched}); "
        f"a {case['policy']} router sends it to {golden} ({why}, {predicted}). {case['derivation']}"
    )
