from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import pytest

from gaugeblock.reference.router.policies import make_policy, policy_names
from gaugeblock.reference.router.policies.base import Policy, PolicySettings, RequestView, WorkerView
from gaugeblock.reference.router.policies.session import SessionAffinity

IDS = ["http://a:1", "http://b:1", "http://c:1"]
IDLE = [WorkerView(i) for i in IDS]


def route(policy: Policy, request: RequestView, workers: list[WorkerView], rng: Random, now: float = 0.0) -> Any:
    decision = policy.decide(request, workers, rng, now)
    policy.record(request, decision, now)
    return decision


def text(prompt: str, **fields: Any) -> RequestView:
    return RequestView(prompt=prompt.encode(), **fields)


def test_every_policy_file_is_found() -> None:
    assert policy_names() == [
        *("cache_aware", "consistent_hash", "least_load", "power_of_two", "random", "round_robin")
    ]


def test_unknown_policy_is_answered_with_the_legal_ones() -> None:
    with pytest.raises(ValueError, match="cache_aware, consistent_hash, least_load, power_of_two, random"):
        make_policy("chache_aware", PolicySettings())


@pytest.mark.parametrize("name", policy_names())
def test_decisions_depend_on_seed_alone_and_pick_an_offered_worker(name: str) -> None:
    def play(seed: int) -> list[str]:
        policy, rng = make_policy(name, PolicySettings()), Random(seed)
        return [route(policy, text(f"{i % 7} prompt {i}"), IDLE[: 1 + i % 3], rng).worker for i in range(60)]

    assert play(3) == play(3)
    assert all(worker in IDS[: 1 + i % 3] for i, worker in enumerate(play(3)))


@pytest.mark.parametrize("name", policy_names())
def test_deciding_twice_without_recording_gives_the_same(name: str) -> None:
    policy = make_policy(name, PolicySettings())
    route(policy, text("warm"), IDLE, Random(1))
    first, second = (policy.decide(text("warm"), IDLE, Random(5), 0.0) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("name", ["cache_aware", "least_load", "random"])
def test_unrelated_sequential_prompts_spread_over_idle_workers(name: str) -> None:
    policy, rng = make_policy(name, PolicySettings()), Random(11)
    counts = Counter(route(policy, text(f"{i * 7919:x} nothing in common {i}"), IDLE, rng).worker for i in range(60))
    assert min(counts[i] for i in IDS) >= 9, counts  # binomial(60, 1/3): below 9 in 1 of 1,500 seeds


def test_a_shared_greeting_does_not_herd() -> None:
    policy, rng = make_policy("cache_aware", PolicySettings()), Random(5)
    prompts = [f"You are a helpful assistant. {Random(i).randbytes(40).hex()}" for i in range(60)]
    counts = Counter(route(policy, text(prompt), IDLE, rng).worker for prompt in prompts)
    assert max(counts.values()) <= 32, counts


def test_numbered_short_prompts_do_not_herd_but_a_repeated_one_comes_home() -> None:
    policy, rng = make_policy("cache_aware", PolicySettings()), Random(5)
    counts = Counter(route(policy, text(f"prompt number {i:02}"), IDLE, rng).worker for i in range(60))
    assert max(counts.values()) <= 32, counts
    assert route(policy, text("prompt number 07"), IDLE, rng).reason == "prefix"


def test_round_robin_survives_joins_and_leaves() -> None:
    policy, rng = make_policy("round_robin", PolicySettings()), Random(0)
    picks = [route(policy, RequestView(), IDLE, rng).worker for _ in range(4)]
    assert picks == [*IDS, IDS[0]]
    assert route(policy, RequestView(), [IDLE[0], IDLE[2]], rng).worker == IDS[2]
    assert route(policy, RequestView(), IDLE, rng).worker == IDS[0]


def test_least_load_takes_the_idlest_and_breaks_ties_at_random() -> None:
    policy, rng = make_policy("least_load", PolicySettings()), Random(2)
    loads = [WorkerView(IDS[0], 3), WorkerView(IDS[1], 1), WorkerView(IDS[2], 1)]
    counts = Counter(route(policy, RequestView(), loads, rng).worker for _ in range(40))
    assert set(counts) == {IDS[1], IDS[2]}


def test_a_known_prefix_comes_home_and_is_predicted() -> None:
    policy, rng = make_policy("cache_aware", PolicySettings()), Random(4)
    homes = {s: route(policy, text(f"{s}" * 300), IDLE, rng).worker for s in "abcdefghijkl"}
    for s in Random(1).sample(sorted(homes) * 5, 60):
        decision = route(policy, text(f"{s}" * 300 + "more"), IDLE, rng)
        assert (decision.worker, decision.reason) == (homes[s], "prefix")
        assert decision.matched in (256, 304), "whole blocks of 128, or all of it"


def test_predicted_prefix_of_ids_counts_tokens() -> None:
    policy, rng = make_policy("cache_aware", PolicySettings()), Random(4)
    ids = bytes(range(200))
    route(policy, RequestView(prompt=ids, unit=4), IDLE, rng)
    assert route(policy, RequestView(prompt=ids, unit=4), IDLE, rng).matched == 50


def test_a_miss_respects_load() -> None:
    policy, rng = make_policy("cache_aware", PolicySettings()), Random(4)
    loads = [WorkerView(IDS[0], 2), WorkerView(IDS[1], 2), WorkerView(IDS[2], 0)]
    decisions = [policy.decide(text(f"{i}fresh"), loads, rng, 0.0) for i in range(20)]
    assert {(d.worker, d.reason) for d in decisions} == {(IDS[2], "miss")}


def test_a_hot_prefix_overflows_when_the_queue_costs_more_than_the_match() -> None:
    policy, rng = make_policy("cache_aware", PolicySettings(load_cost=100.0)), Random(4)
    prompt = text("h" * 1000)
    home = route(policy, prompt, IDLE, rng).worker
    loads = dict.fromkeys(IDS, 0)
    reasons = Counter()
    for _ in range(150):
        decision = route(policy, prompt, [WorkerView(i, loads[i]) for i in IDS], rng)
        loads[decision.worker] += 1
        reasons[decision.reason] += 1
    assert reasons["overflow"] >= 2, reasons
    assert max(loads.values()) - min(loads.values()) <= 11, loads
    assert loads[home] == max(loads.values())


def test_prefixes_are_scoped_by_model() -> None:
    policy, rng = make_policy("cache_aware", PolicySettings()), Random(4)
    for _ in range(5):
        route(policy, text("p" * 400, model="one"), IDLE, rng)
    assert policy.decide(text("p" * 400, model="two"), IDLE, rng, 0.0).reason == "miss"


def test_a_flushed_worker_is_forgotten() -> None:
    policy, rng = make_policy("cache_aware", PolicySettings()), Random(4)
    home = route(policy, text("p" * 400), IDLE, rng).worker
    policy.forget(home)
    assert policy.decide(text("p" * 400), IDLE, rng, 0.0).reason == "miss"


def sessions(**settings: Any) -> SessionAffinity:
    chosen = PolicySettings(**settings)
    return SessionAffinity(make_policy("least_load", chosen), chosen)


def test_shuffled_sessions_stay_with_their_workers() -> None:
    policy, rng = sessions(), Random(9)
    homes: dict[str, str] = {}
    for key in rng.sample([f"s{i}" for i in range(12)] * 5, 60):
        decision = route(policy, RequestView(session=key), IDLE, rng)
        assert homes.setdefault(key, decision.worker) == decision.worker
    assert len(set(homes.values())) == 3


def test_a_session_is_scoped_by_model() -> None:
    policy, rng = sessions(), Random(9)
    route(policy, RequestView(session="s", model="one"), IDLE[:1], rng)
    assert policy.decide(RequestView(session="s", model="one"), IDLE, rng, 0.0).worker == IDS[0]
    assert policy.decide(RequestView(session="s", model="two"), IDLE[1:], rng, 0.0).reason == "least_load"


def test_a_session_moves_for_good_when_its_worker_is_away() -> None:
    policy, rng = sessions(), Random(9)
    route(policy, RequestView(session="s"), IDLE[:1], rng)
    moved = route(policy, RequestView(session="s"), IDLE[1:], rng)
    assert moved.reason == "session_repinned"
    assert route(policy, RequestView(session="s"), IDLE, rng) == (moved.worker, "session", "session", 0)


def test_sessions_expire_by_the_injected_clock() -> None:
    policy, rng = sessions(session_ttl=10.0), Random(9)
    route(policy, RequestView(session="s"), IDLE[:1], rng, now=0.0)
    assert policy.decide(RequestView(session="s"), IDLE, rng, 9.9).reason == "session"
    assert policy.decide(RequestView(session="s"), IDLE[1:], rng, 10.0).reason == "least_load"
    route(policy, RequestView(session="t"), IDLE, rng, now=20.0)
    assert len(policy) == 1


def test_the_session_table_is_bounded_and_drops_the_least_recently_used() -> None:
    policy, rng = sessions(max_sessions=50), Random(9)
    for i in range(500):
        route(policy, RequestView(session="kept"), IDLE, rng, now=float(i))
        route(policy, RequestView(session=f"s{i}"), IDLE, rng, now=float(i))
    assert len(policy) == 50
    assert policy.decide(RequestView(session="kept"), IDLE, rng, 500.0).reason == "session"


def test_a_table_of_no_sessions_is_respected() -> None:
    policy, rng = sessions(max_sessions=0), Random(9)
    route(policy, RequestView(session="s"), IDLE, rng)
    assert len(policy) == 0
