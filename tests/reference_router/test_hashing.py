from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gaugeblock.reference.router.policies import make_policy
from gaugeblock.reference.router.policies.base import Decision, Policy, PolicySettings, RequestView, WorkerView

KEYS = [f"session-{number}" for number in range(2000)]


def fleet(count: int, **fields: Any) -> list[WorkerView]:
    return [WorkerView(f"http://10.0.0.{number}:30000", **fields) for number in range(count)]


def hashing(**chosen: Any) -> Policy:
    return make_policy("consistent_hash", PolicySettings(**chosen))


def ask(policy: Policy, key: str, workers: list[WorkerView], model: str | None = "m") -> Decision:
    return policy.decide(RequestView(model=model, session=key), workers, Random(0), 0.0)


def homes(workers: list[WorkerView]) -> dict[str, str]:
    policy = hashing()
    return {key: ask(policy, key, workers).worker for key in KEYS}


@pytest.mark.parametrize("count", [2, 3, 8, 64])
def test_keys_spread_evenly(count: int) -> None:
    counts = Counter(homes(fleet(count)).values())
    mean = len(KEYS) / count
    assert all(abs(counts[worker.id] - mean) < 5 * mean**0.5 for worker in fleet(count)), counts


@pytest.mark.parametrize("count", [3, 8, 64])
def test_a_worker_that_joins_takes_its_share_from_all_and_nothing_else_moves(count: int) -> None:
    before, after = homes(fleet(count)), homes(fleet(count + 1))
    moved = [key for key in KEYS if before[key] != after[key]]
    mean = len(KEYS) / (count + 1)
    assert {after[key] for key in moved} == {fleet(count + 1)[-1].id}
    assert abs(len(moved) - mean) < 5 * mean**0.5
    assert len({before[key] for key in moved}) > 1


def test_the_order_of_the_workers_says_nothing() -> None:
    assert homes(fleet(5)) == homes(fleet(5)[::-1])


@settings(max_examples=60, deadline=None)
@given(st.sets(st.integers(0, 30), min_size=2, max_size=12), st.data())
def test_a_worker_that_leaves_moves_its_own_keys_only(numbers: set[int], data: st.DataObject) -> None:
    workers = [WorkerView(f"http://10.0.0.{number}:30000") for number in sorted(numbers)]
    gone = data.draw(st.sampled_from(workers))
    policy, left = hashing(), [worker for worker in workers if worker is not gone]
    for key in KEYS[:50]:
        home = ask(policy, key, workers).worker
        assert home == gone.id or ask(policy, key, left).worker == home


def test_a_key_is_scoped_by_model_and_by_kind() -> None:
    policy, workers = hashing(), fleet(16)
    same = sum(ask(policy, key, workers, "a") == ask(policy, key, workers, "b") for key in KEYS[:160])
    assert same < 30, "1 in 16 by chance"
    kinds = [RequestView(session=key) for key in KEYS[:160]], [RequestView(prompt=key.encode()) for key in KEYS[:160]]
    one, other = ([policy.decide(view, workers, Random(0), 0.0).worker for view in views] for views in kinds)
    assert sum(a == b for a, b in zip(one, other, strict=True)) < 30


def test_without_a_session_the_head_of_the_prompt_is_the_key() -> None:
    policy, workers = hashing(hash_head_bytes=8), fleet(16)
    views = [RequestView(prompt=f"headhead{number}".encode()) for number in range(20)]
    assert len({policy.decide(view, workers, Random(0), 0.0) for view in views}) == 1


def test_without_any_key_the_idlest_is_taken() -> None:
    workers = [*fleet(3, load=2), WorkerView("http://idle:1")]
    decision = hashing().decide(RequestView(), workers, Random(0), 0.0)
    assert (decision.worker, decision.reason) == ("http://idle:1", "no_key")


def test_a_hot_key_overflows_in_its_own_order_and_comes_home() -> None:
    policy, loads = hashing(hash_load_factor=1.5, hash_load_floor=4), dict.fromkeys((w.id for w in fleet(4)), 0)

    def send() -> Decision:
        decision = ask(policy, "hot", [WorkerView(worker, load) for worker, load in loads.items()])
        loads[decision.worker] += 1
        return decision

    first = [send() for _ in range(4)]
    assert {d.reason for d in first} == {"hash"}
    assert len({d.worker for d in first}) == 1
    assert send().reason == "overflow"
    for _ in range(95):
        send()
    assert sum(loads.values()) == 100
    assert max(loads.values()) == 38, "the paper's bound: 1.5 x 100 / 4, rounded up"
    assert loads[first[0].worker] == 38
    assert ask(policy, "hot", fleet(4)).worker == first[0].worker


def test_a_factor_of_zero_bounds_nothing() -> None:
    workers = [worker._replace(load=load) for worker, load in zip(fleet(3), (1000, 0, 0), strict=True)]
    decisions = [ask(hashing(hash_load_factor=0.0), key, workers) for key in KEYS[:60]]
    assert {d.reason for d in decisions} == {"hash"}
    assert Counter(d.worker for d in decisions)[workers[0].id] > 5


def test_weights_share_the_keys_and_moving_one_moves_little() -> None:
    even, policy = fleet(3), hashing()
    heavy = [even[0]._replace(weight=2.0), *even[1:]]
    before = {key: ask(policy, key, [w._replace(weight=1.0) for w in even]).worker for key in KEYS}
    after = {key: ask(policy, key, heavy).worker for key in KEYS}
    assert abs(Counter(after.values())[heavy[0].id] - 1000) < 110, "half, by binomial within 5 sigma"
    assert {after[key] for key in KEYS if before[key] != after[key]} == {heavy[0].id}


def test_power_of_two_never_takes_the_busier_and_draws_two_different_ones() -> None:
    policy, rng = make_policy("power_of_two", PolicySettings()), Random(3)
    workers = [WorkerView("http://busy:1", 5), *fleet(3, load=1)]
    counts = Counter(policy.decide(RequestView(), workers, rng, 0.0).worker for _ in range(600))
    assert counts["http://busy:1"] == 0
    assert min(counts[worker.id] for worker in workers[1:]) > 150


def test_power_of_two_counts_load_by_weight_and_equal_ones_by_lot() -> None:
    policy, rng = make_policy("power_of_two", PolicySettings()), Random(3)
    strong = [WorkerView("http://a:1", 4, 4.0), WorkerView("http://b:1", 2, 1.0)]
    assert {policy.decide(RequestView(), strong, rng, 0.0).worker for _ in range(50)} == {"http://a:1"}
    idle = Counter(policy.decide(RequestView(), fleet(2), rng, 0.0).worker for _ in range(200))
    assert min(idle.values()) > 60


@pytest.mark.parametrize("name", ["random", "least_load"])
def test_weights_share_idle_traffic(name: str) -> None:
    policy, rng = make_policy(name, PolicySettings()), Random(3)
    workers = [WorkerView("http://a:1", weight=3.0), WorkerView("http://b:1")]
    counts = Counter(policy.decide(RequestView(), workers, rng, 0.0).worker for _ in range(1000))
    assert abs(counts["http://a:1"] - 750) < 70
