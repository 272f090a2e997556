"""Prefill and decode as one transaction: a pair gets the same request, and the first failure ends both halves.

The contract is SGLang's (see ``bootstrap``); the answer is decode's, byte for byte. What fails is blamed alone, and the
other half is called off: its connection is cut, and it is sent ``/abort_request`` where the request has an ``rid``.
Another pair gets the request only while the client has got nothing, without the worker that failed, within the budgets
of the regular way.
"""

from __future__ import annotations

import asyncio
from random import Random

from gaugeblock.reference.router import refusals
from gaugeblock.reference.router.admission import NotLetInError, Room
from gaugeblock.reference.router.bootstrap import bootstrap_fields, draw_rooms, splice
from gaugeblock.reference.router.breaker import Outcome
from gaugeblock.reference.router.config import RouterConfig
from gaugeblock.reference.router.entry import Entry
from gaugeblock.reference.router.http1 import request_headers
from gaugeblock.reference.router.journey import Journey
from gaugeblock.reference.router.legs import Legs, RefusedError, SideError
from gaugeblock.reference.router.orphans import Orphans
from gaugeblock.reference.router.pairs import HeldPair, Pair, Pairs
from gaugeblock.reference.router.prefill_answer import merging
from gaugeblock.reference.router.registry import Registry
from gaugeblock.reference.router.relay import relay
from gaugeblock.reference.router.retry import RETRIED_KINDS, RETRY_STATUS, RetryBudget
from gaugeblock.reference.router.watch import ExchangeError
from gaugeblock.reference.router.worker import Worker

PAIRED = frozenset(("/generate", "/v1/chat/completions", "/v1/completions"))
"""Paths whose requests SGLang's workers can share."""
ALONE = frozenset(("/tokenize", "/detokenize"))
"""Paths that a prefill worker answers without decode, beside everything that is asked with GET."""
_SETTLING = 1.0  # seconds that a worker gets to hear that its half is called off before it gets the request again


class Disaggregation:
    """Serves requests by pairs. ``budget`` and ``orphans`` are those of the regular way."""

    def __init__(
        self,
        config: RouterConfig,
        registry: Registry,
        pairs: Pairs,
        entry: Entry,
        budget: RetryBudget,
        orphans: Orphans,
    ) -> None:
        self._config, self._registry, self._pairs, self._entry = config, registry, pairs, entry
        self._budget, self._orphans = budget, orphans
        self._rooms = Random()  # never seeded: two routers in front of the same workers must not meet in a room

    def able(self, journey: Journey) -> bool:
        """Whether a pair may take the request, now or once another one has ended."""
        _, look = self._pairs.lane(journey)
        return look() is not Room.NONE

    async def attempt(self, journey: Journey) -> bool:
        """Try one pair; returns whether another one should be tried."""
        held = await self._hold(journey)
        if held is None:
            return False
        pair = held.pair
        with held.prefill as first, held.decode as second:
            bodies = self._bodies(journey, pair)
            if bodies is None:
                refusals.no_object(journey)
                return False
            legs = Legs(pair, journey, self._config, self._orphans)
            try:
                await self._orphans.settle(journey.called_off & {pair.prefill.id, pair.decode.id}, _SETTLING)
                await legs.open()
                legs.send(request_headers(journey.request.head), *bodies, first)
                await legs.join()
                if legs.decode.status >= 400:
                    self._call_off(journey, [worker for worker in legs.running if worker is pair.prefill], pair.decode)
                if legs.decode.status in RETRY_STATUS and self._may_retry(journey, pair.decode):
                    second.score(Outcome.FAULT)
                    return True
                second.score(await self._relay(journey, legs))
                second.heard(legs.decode.status, legs.decode.first_byte)
            except SideError as error:
                if not self._orphans.unwanted(journey.reading.rids):
                    (first if error.worker is pair.prefill else second).broke(error.kind)
                return self._broken(journey, legs, error)
            except RefusedError as error:
                return self._refused(journey, legs, pair, error)
            except asyncio.CancelledError:
                refusals.shutting_down(journey)
                raise
            finally:
                legs.close()
        return False

    async def _hold(self, journey: Journey) -> HeldPair | None:
        """Return the pair that the request goes to now; None if it was refused, and told so."""
        if journey.visit is not None:
            return await self._entry.wait(journey, *self._pairs.lane(journey), lambda: self._take(journey))
        pair = self._pairs.pick(journey)
        if pair is not None:
            return HeldPair(pair)
        refusals.no_worker(journey, self._registry.retry_after(journey.reading.view.model, journey.route.pool))
        return None

    def _take(self, journey: Journey) -> HeldPair:
        pair = self._pairs.pick(journey)
        if pair is None:  # the workers have changed since the request began to wait
            raise NotLetInError("no_worker")
        return HeldPair(pair)

    def _bodies(self, journey: Journey, pair: Pair) -> tuple[bytes, bytes] | None:
        """Return what prefill and decode get; None if the request is no JSON object."""
        number, batch, _, _ = journey.reading.sequences
        prefill, body = pair.prefill, journey.request.body
        rooms = draw_rooms(number, self._rooms, pair.rank or 0, prefill.dp_size)
        fields = bootstrap_fields(prefill.host, prefill.bootstrap_port, rooms, batch)
        if pair.rank is None or prefill.follows_room:
            both = splice(body, fields)
            return None if both is None else (both, both)
        halves = [splice(body, {**fields, name: pair.rank}) for name in ("routed_dp_rank", "disagg_prefill_dp_rank")]
        return None if halves[0] is None or halves[1] is None else (halves[0], halves[1])

    async def _relay(self, journey: Journey, legs: Legs) -> Outcome:
        """Pass decode's answer on."""
        wanted = journey.reading.sequences.logprobs and journey.reading.family == "native"
        edit = merging(legs.answer) if wanted and legs.answer is not None else None
        try:
            return await relay(legs.decode, journey.reply, journey.receipt(), journey.reading, self._config, edit)
        except ExchangeError as error:
            raise SideError(legs.pair.decode, error.kind, legs.decode.got_body) from error

    def _may_retry(self, journey: Journey, failed: Worker) -> bool:
        """Whether a pair without ``failed`` is there and the budgets of the request and of the router allow it."""
        journey.tried.add(failed.id)
        if journey.attempts - journey.refused > self._config.retries or journey.reply.started:
            return False
        if self._orphans.unwanted(journey.reading.rids):
            return False
        return self.able(journey) and self._budget.take()

    def _broken(self, journey: Journey, legs: Legs, error: SideError) -> bool:
        """Deal with a side that broke: retry, answer with an error, or end a stream that has begun."""
        if journey.reply.started:
            refusals.broke_off(journey, error.kind)
            return False
        journey.refused += error.kind == "connect"
        self._call_off(journey, legs.running, error.worker)
        if error.kind in RETRIED_KINDS and not error.got_body and self._may_retry(journey, error.worker):
            return True
        refusals.failed(journey, error.kind, self._registry.retry_after(journey.reading.view.model, journey.route.pool))
        return False

    def _refused(self, journey: Journey, legs: Legs, pair: Pair, error: RefusedError) -> bool:
        """Prefill has not done its part: its own answer is the client's, unless another pair can do better."""
        self._call_off(journey, legs.running, pair.prefill)
        if error.answer.status in RETRY_STATUS and self._may_retry(journey, pair.prefill):
            return True
        assert journey.decision is not None
        journey.decision = journey.decision._replace(worker=pair.prefill.id)
        refusals.answer_of_prefill(journey, error.answer, error.reason)
        return False

    def _call_off(self, journey: Journey, running: list[Worker], failed: Worker) -> None:
        """Tell both sides to stop what nobody will read, and remember who may still be at it."""
        for worker in running:
            self._orphans.abort(worker, journey.reading.rids)
            if worker is not failed:
                journey.called_off.add(worker.id)
