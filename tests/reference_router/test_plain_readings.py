"""Every policy decides as its plain reading does, on arrivals that Hypothesis makes up."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gaugeblock.fixtures.goldens.routers import ROUTERS, Request
from gaugeblock.fixtures.goldens.routing import prompt_bytes
from gaugeblock.fixtures.targets.router_policies import OwnPolicies
from gaugeblock.reference.router.policies.base import RequestView, WorkerView

SETTINGS: dict[str, dict[str, Any]] = {
    "cache_aware": {"load_cost": 150.0},
    "consistent_hash": {"hash_load_floor": 2},
    "session": {"session_ttl": 6.0, "max_sessions": 3},
}
PROMPTS = ("a256", "a256+b128", "a256+b200", "b512", "b64", "a200+b256")
loads = st.lists(st.integers(0, 2), min_size=5, max_size=5)
arrivals = st.fixed_dictionaries(
    {"loads": loads, "away": st.sets(st.integers(0, 4), max_size=4), "wait": st.integers(0, 4)},
    optional={
        "model": st.sampled_from(["m", "n"]),
        "session": st.sampled_from("stuvw"),
        "unit": st.sampled_from([1, 4]),
        "prompt": st.sampled_from(PROMPTS),
    },
)
steps = st.lists(
    st.one_of(arrivals, st.sampled_from(["w0", "w3"])), min_size=10, max_size=40
)  # a name: that worker is forgotten


@pytest.mark.parametrize("name", OwnPolicies().names())
@settings(max_examples=40, deadline=None)
@given(steps=steps, seed=st.integers(0, 99), heavy=st.sampled_from([1.0, 2.0]))
def test_decisions_are_those_of_the_plain_reading(
    name: str, steps: list[dict[str, Any] | str], seed: int, heavy: float
) -> None:
    chosen = SETTINGS.get(name, {})
    policy, rng = OwnPolicies().make(name, chosen), Random(seed)
    plain = ROUTERS[name](chosen, Random(seed))
    now = 0.0
    for step in steps:
        if isinstance(step, str):
            policy.forget(step)
            plain.forget(step)
            continue
        now += step["wait"]
        weights = [1.0, 1.0, 1.0, 1.0, 1.0 if name == "consistent_hash" else heavy]
        workers = [(f"w{n}", step["loads"][n], weights[n]) for n in range(5) if n not in step["away"]]
        model, session, unit = step.get("model"), step.get("session"), step.get("unit", 1)
        prompt = prompt_bytes(step)
        request = RequestView(model, session, prompt, unit)
        decision = policy.decide(request, [WorkerView(*worker) for worker in workers], rng, now)
        policy.record(request, decision, now)
        wanted = plain.route(Request(now, workers, model, session, prompt, unit))
        assert (decision.worker, decision.reason, decision.matched) == wanted
