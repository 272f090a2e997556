"""Choosing a prefill and a decode worker for one request."""

from __future__ import annotations

from collections.abc import Callable, Collection
from random import Random
from typing import NamedTuple

from gaugeblock.reference.router.admission import Room
from gaugeblock.reference.router.fair_queue import Lane
from gaugeblock.reference.router.journey import Journey
from gaugeblock.reference.router.policies.base import Decision, Policy, WorkerView
from gaugeblock.reference.router.policy_set import PolicySet
from gaugeblock.reference.router.registry import Registry
from gaugeblock.reference.router.worker import Lease, Worker


class Pair(NamedTuple):
    """The two workers of one attempt; ``rank`` is the prefill's data-parallel rank, None if it has but one."""

    prefill: Worker
    decode: Worker
    rank: int | None


class HeldPair:
    """A pair with the leases of both of its workers."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.prefill, self.decode = Lease(pair.prefill, pair.rank).begin(), Lease(pair.decode).begin()

    def end(self) -> None:
        """End both leases."""
        self.prefill.end()
        self.decode.end()


class Pairs:
    """The policy of the route picks the prefill worker, whose cache it knows, and ``decode_policy`` the decode worker.

    To the policy a prefill worker with several data-parallel ranks is as many workers, named ``URL@RANK``: a session
    or a prefix stays with its rank. ``clock`` in seconds and ``rng`` are the policies'.
    """

    def __init__(self, registry: Registry, policies: PolicySet, rng: Random, clock: Callable[[], float]) -> None:
        self._registry, self._policies, self._rng, self._clock = registry, policies, rng, clock

    def pick(self, journey: Journey) -> Pair | None:
        """Return a pair of workers of one pool that have not failed this request, and note the choice in the journey.

        Those that have begun on it and been called off are taken only if there is no other.
        """
        prefills, decodes = self.candidates(journey)
        if not prefills:
            return None
        prefills, policy = _rather(prefills, journey.called_off), self._policies.get(journey.route.policy)
        chosen, decision = self._decide(policy, journey, _by_rank(prefills, journey.reading.sequences.rank))
        worker, rank = _split(chosen)
        prefill = self._registry.workers[worker]
        mates = [decode for decode in decodes if decode.spec.pool == prefill.spec.pool]
        views = [WorkerView(mate.id, mate.in_flight, mate.spec.weight) for mate in _rather(mates, journey.called_off)]
        decode, _ = self._decide(self._policies.decode, journey, views)
        journey.settle(decision._replace(worker=decode), self._registry.workers[decode].spec)
        journey.prefill = chosen
        journey.attempts += 1
        return Pair(prefill, self._registry.workers[decode], rank)

    def candidates(self, journey: Journey) -> tuple[list[Worker], list[Worker]]:
        """Return the prefill and the decode workers that may take the request, of pools that have both."""
        prefills, decodes = (self._role(journey, role) for role in ("prefill", "decode"))
        pools = {worker.spec.pool for worker in prefills} & {worker.spec.pool for worker in decodes}
        return [w for w in prefills if w.spec.pool in pools], [w for w in decodes if w.spec.pool in pools]

    def lane(self, journey: Journey) -> tuple[Lane, Callable[[], Room]]:
        """Return what names the pairs that may take the request, and what tells whether there is room at one."""
        model, route, tried = self._registry.kin(journey.reading.view.model), journey.route, frozenset(journey.tried)
        return ("pair", model, route.pool, route.order, route.floor, tried), lambda: self._registry.room_for_pairs(
            model, tried, route.pool, route.order, route.floor
        )

    def _role(self, journey: Journey, role: str) -> list[Worker]:
        model, route = journey.reading.view.model, journey.route
        return self._registry.candidates(
            model, journey.tried, role=role, pool=route.pool, tiers=route.order, floor=route.floor
        )

    def _decide(self, policy: Policy, journey: Journey, views: list[WorkerView]) -> tuple[str, Decision]:
        view, now = journey.reading.view, self._clock()
        decision = policy.decide(view, views, self._rng, now)
        policy.record(view, decision, now)
        return decision.worker, decision


def _rather(workers: list[Worker], seen: Collection[str]) -> list[Worker]:
    return [worker for worker in workers if worker.id not in seen] or workers


def _by_rank(workers: list[Worker], named: int | None) -> list[WorkerView]:
    """Return what the policy sees; a rank that the client names is the only one of its worker."""
    views = []
    for worker in workers:
        if worker.dp_size == 1:
            views.append(WorkerView(worker.id, worker.in_flight, worker.spec.weight))
            continue
        ranks = [named] if named is not None and 0 <= named < worker.dp_size else range(worker.dp_size)
        weight = worker.spec.weight / worker.dp_size
        views += [WorkerView(f"{worker.id}@{rank}", worker.rank_load[rank], weight) for rank in ranks]
    return views


def _split(name: str) -> tuple[str, int | None]:
    worker, mark, rank = name.rpartition("@")
    return (worker, int(rank)) if mark else (name, None)
