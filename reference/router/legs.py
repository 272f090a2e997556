"""The two exchanges of one attempt at a pair, joined: neither can fail without ending the other."""

from __future__ import annotations

import asyncio

from gaugeblock.reference.router.calls import Answer
from gaugeblock.reference.router.config import RouterConfig
from gaugeblock.reference.router.exchange import Exchange
from gaugeblock.reference.router.http1 import Header
from gaugeblock.reference.router.journey import Journey
from gaugeblock.reference.router.orphans import Orphans
from gaugeblock.reference.router.pairs import Pair
from gaugeblock.reference.router.prefill_answer import judge_prefill
from gaugeblock.reference.router.watch import ExchangeError, FailureKind
from gaugeblock.reference.router.worker import Lease, Worker


class SideError(Exception):
    """One worker of a pair failed before the other. ``kind`` says how, ``got_body`` whether after a piece of body."""

    def __init__(self, worker: Worker, kind: FailureKind, got_body: bool = False) -> None:
        super().__init__(kind)
        self.worker, self.kind, self.got_body = worker, kind, got_body


class RefusedError(Exception):
    """The prefill worker's whole answer says that it has not done its part."""

    def __init__(self, answer: Answer, reason: bytes) -> None:
        super().__init__(str(answer.status))
        self.answer, self.reason = answer, reason


class Legs:
    """``open``, ``send``, ``join``; then the answer is read from ``decode``. ``close`` cuts what has not ended well.

    The client gets nothing before prefill has ended well, so a failure of either side can still be told by a status
    or be hidden by another pair. Silence counts against prefill while it runs, and against decode afterwards: decode
    has nothing to say before.
    """

    def __init__(self, pair: Pair, journey: Journey, config: RouterConfig, orphans: Orphans) -> None:
        self.pair, self._journey, self._config, self._orphans = pair, journey, config, orphans
        self._prefill: Exchange | None = None
        self._decode: Exchange | None = None
        self._task: asyncio.Task[None] | None = None
        self._failure: FailureKind | None = None
        self._reason = b""
        self._headers: list[Header] = []
        self._bodies = (b"", b"")
        self.answer: Answer | None = None  # prefill's, once it is whole

    @property
    def decode(self) -> Exchange:
        """The exchange that the client's answer comes from."""
        assert self._decode is not None
        return self._decode

    @property
    def running(self) -> list[Worker]:
        """The workers that were sent the request and have not ended their answers."""
        sides = ((self.pair.prefill, self._prefill), (self.pair.decode, self._decode))
        return [worker for worker, exchange in sides if self._task and exchange is not None and not exchange.done]

    async def open(self) -> None:
        """Connect to both before either gets anything, so that a dead one costs the other no work.

        Raises:
            SideError: kind ``connect``.
        """
        for worker in (self.pair.prefill, self.pair.decode):
            try:
                exchange = await worker.upstream.open()
            except ExchangeError as error:
                raise SideError(worker, error.kind) from error
            if worker is self.pair.prefill:
                self._prefill = exchange
            else:
                self._decode = exchange

    def send(self, headers: list[Header], prefill_body: bytes, decode_body: bytes, lease: Lease) -> None:
        """Write the request to both and begin to read prefill's answer, at whose end its ``lease`` ends."""
        assert self._prefill is not None
        self._headers, self._bodies = headers, (prefill_body, decode_body)
        self._write(self.pair.prefill, self._prefill)
        self._write(self.pair.decode, self.decode)
        self._task = asyncio.create_task(self._read_prefill(self._prefill, lease))

    async def join(self) -> None:
        """Wait for the end of prefill's answer and the head of decode's.

        Raises:
            SideError: a side broke.
            RefusedError: prefill has answered, but has not done its part; decode has not answered yet.
        """
        try:
            while not await self._joined():
                self._decode = await self._anew(self.pair.decode, self.decode)
        except ExchangeError as error:
            raise SideError(self.pair.decode, error.kind, self.decode.got_body) from error
        self._bodies = (b"", b"")  # nobody gets them again, and the answer may take long
        if not self.decode.done:
            self.decode.limit(self._config.idle_timeout, self._journey.deadline)

    async def _joined(self) -> bool:
        """Wait as :meth:`join` does; False if decode had closed its connection before the request came."""
        decode = self.decode
        try:
            await decode.until(lambda: self._over or decode.status >= 400)
            if self._over:
                self._check_prefill()
                stream = self._journey.reading.stream
                decode.limit(self._config.idle_timeout if stream else None, self._journey.deadline)
            await decode.read_head()
        except ExchangeError:
            if not self._too_late(decode):
                raise
            return False
        return True

    def close(self) -> None:
        """Give both connections back; what has not ended well is cut, and its worker sees the client leave."""
        if self._task is not None:
            self._task.cancel()
        if self._prefill is not None:
            self.pair.prefill.upstream.give_back(self._prefill)
        if self._decode is not None:
            self.pair.decode.upstream.give_back(self._decode)
        self._prefill = self._decode = None

    @property
    def _over(self) -> bool:
        return self.answer is not None or self._failure is not None

    def _write(self, worker: Worker, exchange: Exchange) -> None:
        request, body = self._journey.request, self._bodies[worker is self.pair.decode]
        worker.upstream.write(exchange, request.method, request.target, self._headers, body)
        if worker is self.pair.prefill:
            exchange.limit(self._config.idle_timeout, self._journey.deadline)

    async def _anew(self, worker: Worker, exchange: Exchange) -> Exchange:
        """Send the request again on another connection: see :attr:`Exchange.stale`."""
        worker.upstream.give_back(exchange)
        exchange = await worker.upstream.open()
        self._write(worker, exchange)
        return exchange

    async def _read_prefill(self, exchange: Exchange, lease: Lease) -> None:
        try:
            while (body := await self._prefill_body(exchange)) is None:
                self._prefill = exchange = await self._anew(self.pair.prefill, exchange)
        except ExchangeError as error:
            self._failure = error.kind
        else:
            assert exchange.head is not None
            self._reason = exchange.head.first[2]
            self.answer = Answer(exchange.status, exchange.head.headers, body)
            lease.heard(exchange.status, exchange.first_byte)
            lease.score(judge_prefill(self.answer)[1])
            lease.end()
            self._prefill = None
            self.pair.prefill.upstream.give_back(exchange)
        self.decode.wake()

    async def _prefill_body(self, exchange: Exchange) -> bytes | None:
        """Return prefill's whole body; None if it had closed its connection before the request came."""
        try:
            await exchange.read_head()
            return await exchange.whole_body()
        except ExchangeError:
            if not self._too_late(exchange):
                raise
            return None

    def _too_late(self, exchange: Exchange) -> bool:
        """Whether the worker had closed the connection before the request came, and it is still wanted."""
        return exchange.stale and not self._orphans.unwanted(self._journey.reading.rids)

    def _check_prefill(self) -> None:
        if self._failure is not None:
            raise SideError(self.pair.prefill, self._failure)
        assert self.answer is not None
        good, _ = judge_prefill(self.answer)
        if not good:
            raise RefusedError(self.answer, self._reason)
