"""Consistent hashing: a key has a worker of its own, and workers that come or go move no key that is not theirs.

Rendezvous hashing (Thaler and Ravishankar, IEEE/ACM Transactions on Networking 1998): each worker gets a number from
its id and the key, and the highest has the key. With bounded load (Mirrokni, Thorup and Zadimoghaddam, SODA 2018): a
worker that has more than its share passes the key on to the next in the key's own order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from hashlib import blake2b
from random import Random

from gaugeblock.reference.router.policies.base import (
    Decision,
    PolicySettings,
    RequestView,
    Stateless,
    WorkerView,
    idlest,
    policy,
)

_MASK = (1 << 64) - 1
_ODD = 0x94D049BB133111EB  # a multiplier of splitmix64


@policy("consistent_hash")
class ConsistentHash(Stateless):
    """The key is the session, else the first ``hash_head_bytes`` of the prompt, both scoped by model.

    Every router with the same workers comes to the same answer, after a restart too: nothing is remembered. A worker is
    full at ``hash_load_factor`` times its share of all requests in flight (0: never), but not below ``hash_load_floor``
    requests: engines batch a few for free, and a cold cache costs more. A request without a key goes where least is in
    flight.
    """

    reads_prompt = True
    keeps_sessions = True

    def __init__(self, settings: PolicySettings) -> None:
        super().__init__(settings)
        self._seeds = _Seeds()

    def decide(self, request: RequestView, workers: Sequence[WorkerView], rng: Random, now: float) -> Decision:
        """Pick the key's first worker that is not full."""
        key = self._key(request)
        if key is None:
            return Decision(idlest(workers, rng).id, self.name, "no_key")
        ranks = self._ranks(key, workers)
        home = workers[ranks.index(max(ranks))]
        limit = self._limit(workers)
        if home.load < self._room(home, limit):
            return Decision(home.id, self.name, "hash")
        order = (worker for _, worker in sorted(zip(ranks, workers, strict=True), reverse=True))
        chosen = next((worker for worker in order if worker.load < self._room(worker, limit)), home)
        return Decision(chosen.id, self.name, "hash" if chosen is home else "overflow")

    def forget(self, worker: str) -> None:
        """Drop the bits of its id."""
        self._seeds.pop(worker, None)

    def _ranks(self, key: int, workers: Sequence[WorkerView]) -> Sequence[float]:
        """Return each worker's number for a key: the highest has it, with probability weight / sum of the weights."""
        seeds = self._seeds
        mixed = [((x := key ^ seeds[worker.id]) ^ (x >> 32)) * _ODD & _MASK for worker in workers]
        weights = [worker.weight for worker in workers]
        if weights.count(weights[0]) == len(weights):
            return mixed  # the same order, without a logarithm each
        shares = (((x >> 12) + 0.5) / (1 << 52) for x in mixed)  # in (0, 1), exact
        return [-weight / math.log(share) for weight, share in zip(weights, shares, strict=True)]

    def _key(self, request: RequestView) -> int | None:
        """Return 64 bits for what must stay together; None if nothing must."""
        if request.session is not None:
            kind, value = b"session", request.session.encode(errors="replace")
        elif request.prompt:
            kind, value = b"prompt", request.prompt[: self.settings.hash_head_bytes]
        else:
            return None
        return _bits(b"\0".join(((request.model or "").encode(errors="replace"), kind, value)))

    def _limit(self, workers: Sequence[WorkerView]) -> float:
        """Return the requests in flight that are a full share for one unit of weight, this one counted."""
        if not self.settings.hash_load_factor:
            return math.inf
        total = 1 + sum([worker.load for worker in workers])
        return self.settings.hash_load_factor * total / sum([worker.weight for worker in workers])

    def _room(self, worker: WorkerView, limit: float) -> float:
        return max(self.settings.hash_load_floor, limit * worker.weight)


class _Seeds(dict[str, int]):
    """The bits of each worker's id."""

    def __missing__(self, worker: str) -> int:
        self[worker] = _bits(worker.encode())
        return self[worker]


def _bits(data: bytes) -> int:
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "big")
