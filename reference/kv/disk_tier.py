"""The disk tier: what is in the store, within a budget of bytes, written and read by a worker beside the engine.

A disk that fails costs hits, never bytes: after an error the tier says nothing and takes nothing for a while, and what
lies on it stays. A page that turns out to be damaged is forgotten.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

from gaugeblock.reference.kv.disk.store import DiskStore, PageData
from gaugeblock.reference.kv.pages import KVError
from gaugeblock.reference.kv.payload import Payload
from gaugeblock.reference.kv.policies import Policy
from gaugeblock.reference.kv.table import PageTable
from gaugeblock.reference.kv.tier import Lookup, NewPage, Tier

T = TypeVar("T")

DISK_BIT = 2
RETRY_SECONDS = 10.0  # after an error of the disk
WAIT_SECONDS = 30.0  # for one read, or for all that is on its way; a disk that is slower has failed
MAX_QUEUED_BYTES = 256 << 20  # written by the worker later; what comes above is not backed up


class Inline(Executor):
    """Does at once what it is given: a worker for those who want no thread."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Run ``fn`` and return its result as a finished future."""
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # as the worker of a thread pool does
            future.set_exception(error)
        return future


class DiskTier:
    """Pages of a :class:`DiskStore` within ``capacity`` bytes. Every method belongs to the engine's thread.

    ``worker`` runs jobs one after another, in the order in which they were given.
    """

    def __init__(
        self,
        store: DiskStore,
        capacity: int,
        policy: Policy,
        table: PageTable,
        *,
        worker: Executor | None = None,
        clock: Callable[[], float] = time.monotonic,
        quotas: Mapping[str, int] | None = None,
    ) -> None:
        self.index = Tier("disk", capacity, policy, table, DISK_BIT, quotas)
        self.store = store
        self.stored = 0
        self.loaded = 0
        self.failures = 0
        self.skipped = 0  # not backed up: the disk failed, the queue was full, or there was no room
        self._worker = worker or Inline()
        self._clock = clock
        self._retry_at: float | None = None
        self._writing: deque[tuple[Future[None], list[bytes], int]] = deque()
        self._queued = 0
        self._doomed: list[bytes] = []  # evicted, and still to be deleted
        for found in store.entries():
            self.index.adopt(NewPage(found.key, found.parent, found.size))
        self._doomed += self.index.shrink()

    @property
    def degraded(self) -> bool:
        """Whether the disk failed a short while ago: nothing is found on it and nothing stored."""
        if self._retry_at is not None and self._clock() >= self._retry_at:
            self._retry_at = None
        return self._retry_at is not None

    def lookup(self, key: bytes) -> Lookup:
        """Say what is here of a key; nothing while the disk is degraded."""
        return Lookup.MISS if self.degraded else self.index.lookup(key)

    def write(self, payloads: Sequence[Payload]) -> None:
        """Store pages in the background, those that are not here. What cannot be stored is counted as skipped."""
        wanted = [p for p in payloads if self.index.lookup(p.key) is Lookup.MISS]
        if not wanted:
            return
        if self.degraded or self._queued >= MAX_QUEUED_BYTES:
            self.skipped += len(wanted)
            return
        batch = [payload for payload in wanted if self._reserve(payload)]
        doomed, self._doomed = self._doomed, []
        if not batch and not doomed:
            return
        size = sum(payload.data.nbytes for payload in batch)
        future = self._worker.submit(self._write, batch, doomed)
        self._writing.append((future, [payload.key for payload in batch], size))
        self._queued += size
        self.poll()

    def read(self, keys: Sequence[bytes]) -> list[bytes]:
        """Return the bytes of leading ``keys``, as many as are here whole. Waits for what is on its way."""
        if any(self.lookup(key) is Lookup.PENDING for key in keys):
            self.settle()
        found: list[bytes] = []
        for key in keys:
            data = self._read(key)
            if data is None:
                break
            found.append(data)
        self.loaded += len(found)
        return found

    def begin_read(self, key: bytes) -> Future[bytes | None] | None:
        """Start to read a page in the background; :meth:`end_read` must follow. None if it is not here."""
        if self.lookup(key) is not Lookup.HIT:
            return None
        self.index.prepare_load([key])
        return self._worker.submit(self.store.get, key)

    def end_read(self, key: bytes, future: Future[bytes | None], wait: float = 0.0) -> bytes | None:
        """Take in what :meth:`begin_read` started: the bytes, or None after damage or an error."""
        try:
            data = future.result(wait)
        except (OSError, TimeoutError):
            self.index.complete_load([key])
            self._fail()
            return None
        self.index.complete_load([key])
        if data is None:
            self.index.discard(key)
        return data

    def poll(self) -> None:
        """Take in the writes that have ended, in order."""
        while self._writing and self._writing[0][0].done():
            self._end_write(*self._writing.popleft())

    def settle(self, seconds: float = WAIT_SECONDS) -> None:
        """Wait for all writes.

        Raises:
            KVError: they do not end in time.
        """
        deadline = time.monotonic() + seconds
        while self._writing:
            try:
                self._writing[0][0].exception(max(0.0, deadline - time.monotonic()))
            except TimeoutError:
                raise KVError(f"{len(self._writing)} writes to the disk tier did not end in {seconds:.0f} s") from None
            self.poll()

    def clear(self) -> None:
        """Forget every page, and delete its file."""
        self.settle()
        self._doomed += self.index.clear()
        doomed, self._doomed = self._doomed, []
        self._writing.append((self._worker.submit(self._write, [], doomed), [], 0))
        self.settle()

    def close(self) -> None:
        """Write what is on its way, and let go of the folder."""
        try:
            self.settle()
        finally:
            self._worker.shutdown()
            self.store.close()

    def recount(self) -> None:
        """Raise :class:`KVError` if a counter is wrong."""
        self.poll()
        self.index.recount()

    def _reserve(self, payload: Payload) -> bool:
        plan = self.index.prepare_store([payload.page])
        if plan is None:
            self.skipped += 1
            return False
        self._doomed += plan.evicted
        return bool(plan.fresh)

    def _write(self, batch: list[Payload], doomed: list[bytes]) -> None:
        if doomed:
            self.store.delete(doomed)
        if batch:
            self.store.put([PageData(payload.key, payload.parent, payload.buffer) for payload in batch])

    def _end_write(self, future: Future[None], keys: list[bytes], size: int) -> None:
        self._queued -= size
        error = future.exception()
        self.index.complete_store(keys, stored=error is None)
        if error is None:
            self.stored += len(keys)
            return
        if not isinstance(error, OSError):
            raise error
        self.skipped += len(keys)
        self._fail()

    def _read(self, key: bytes) -> bytes | None:
        future = self.begin_read(key)
        return None if future is None else self.end_read(key, future, WAIT_SECONDS)

    def _fail(self) -> None:
        self.failures += 1
        self._retry_at = self._clock() + RETRY_SECONDS
