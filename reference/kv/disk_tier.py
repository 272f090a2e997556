"""The disk tier: what is in the store, within a budget of bytes, written and read by a worker beside the engine.

A disk that fails costs hits, never bytes: after a read that failed the tier says nothing for a while, after a write it
takes nothing, and what lies on it stays. A full disk keeps serving. A page that turns out to be damaged is forgotten.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
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


@dataclass(frozen=True)
class _Write:
    """A job of the worker: pages that it writes after it has deleted others. ``size`` in bytes."""

    future: Future[None]
    keys: list[bytes]
    doomed: list[bytes]
    size: int


class DiskTier:
    """Pages of a :class:`DiskStore` within ``capacity`` bytes. Every method belongs to the engine's thread.

    ``worker`` writes and deletes, one job after another in the order in which they were given; ``reader`` reads, so
    that a request does not wait behind what is being stored (None: the worker does).
    """

    def __init__(
        self,
        store: DiskStore,
        capacity: int,
        policy: Policy,
        table: PageTable,
        *,
        worker: Executor | None = None,
        reader: Executor | None = None,
        clock: Callable[[], float] = time.monotonic,
        quotas: Mapping[str, int] | None = None,
    ) -> None:
        self.index = Tier("disk", capacity, policy, table, DISK_BIT, quotas)
        self.table = table
        self.store = store
        self.stored = 0
        self.loaded = 0
        self.failures = 0
        self.skipped = 0  # not backed up: the disk failed, the queue was full, or there was no room
        self._worker = worker or Inline()
        self._reader = reader or self._worker
        self._clock = clock
        self._retry_reads = self._retry_writes = -math.inf  # not before this time
        self._writing: deque[_Write] = deque()
        self._queued = 0
        self._doomed: list[bytes] = []  # not in the index, and perhaps still in the store
        for found in store.entries():
            self.index.adopt(NewPage(found.key, found.parent, found.size, found.owner))
        self._doomed += self.index.shrink()

    @property
    def degraded(self) -> bool:
        """Whether the disk failed a short while ago: nothing is found on it, or nothing stored."""
        return self._clock() < max(self._retry_reads, self._retry_writes)

    def lookup(self, key: bytes) -> Lookup:
        """Say what is here of a key; nothing for a while after a read that failed."""
        return Lookup.MISS if self._clock() < self._retry_reads else self.index.lookup(key)

    def write(self, payloads: Sequence[Payload]) -> None:
        """Store pages in the background, those that are not here. What cannot be stored is counted as skipped.

        ``payloads`` in the order in which they would be evicted, children before their parents: where there is no room
        for all, the last are stored.
        """
        wanted = {p.key: p for p in reversed(payloads) if self.index.lookup(p.key) is Lookup.MISS}
        if not wanted:
            return
        if self._clock() < self._retry_writes or self._queued >= MAX_QUEUED_BYTES:
            self.skipped += len(wanted)
            return
        batch = self._reserve(list(wanted.values()))
        self.skipped += len(wanted) - len(batch)
        self._submit(batch)
        self.poll()

    def read(self, keys: Sequence[bytes]) -> list[bytes]:
        """Return the bytes of leading ``keys``, as many as are here whole. Waits for what is on its way."""
        if any(self.lookup(key) is Lookup.PENDING for key in keys):
            try:
                self.settle()
            except KVError:
                self._fail_read()
        started = self._begin_reads(keys)
        found: list[bytes] = []
        for key, future in started:
            data = self.end_read(key, future, WAIT_SECONDS)
            if data is None:
                break
            found.append(data)
        for key, future in started[len(found) + 1 :]:  # behind one that did not come
            self.drop_read(key, future)
        self.loaded += len(found)
        return found

    def begin_read(self, key: bytes) -> Future[bytes | None] | None:
        """Start to read a page in the background; :meth:`end_read` must follow. None if it is not here."""
        if self.lookup(key) is not Lookup.HIT:
            return None
        self.index.prepare_load([key])
        return self._reader.submit(self.store.get, key)

    def end_read(self, key: bytes, future: Future[bytes | None], wait: float = 0.0) -> bytes | None:
        """Take in what :meth:`begin_read` started: the bytes, or None after damage or an error."""
        try:
            data = future.result(wait)
        except (OSError, TimeoutError):
            self.index.complete_load([key])
            self._fail_read()
            return None
        self.index.complete_load([key])
        if data is None:
            self.index.discard(key)
        return data

    def drop_read(self, key: bytes, future: Future[bytes | None]) -> None:
        """Do without what :meth:`begin_read` started; nothing is waited for."""
        future.cancel()
        self.index.complete_load([key])

    def poll(self) -> None:
        """Take in the writes that have ended, in order."""
        while self._writing and self._writing[0].future.done():
            self._end_write(self._writing.popleft())

    def settle(self, seconds: float = WAIT_SECONDS) -> None:
        """Wait for all writes.

        Raises:
            KVError: they do not end in time.
        """
        deadline = time.monotonic() + seconds
        while self._writing:
            try:
                self._writing[0].future.exception(max(0.0, deadline - time.monotonic()))
            except TimeoutError:
                raise KVError(f"{len(self._writing)} writes to the disk tier did not end in {seconds:.0f} s") from None
            self.poll()

    def clear(self) -> None:
        """Forget every page, and delete its file.

        Raises:
            KVError: the disk does not end what it writes, and nothing is forgotten; or what it deletes, and it will.
        """
        self.settle()
        self._doomed += self.index.clear()
        self._submit([])
        self.settle()

    def close(self) -> None:
        """Write what is on its way, and let go of the folder.

        Raises:
            KVError: a read or write does not end in time; the folder stays this process's until it ends.
        """
        try:
            self.settle()
        finally:
            self._end_workers()
            self.store.close()

    def _end_workers(self, seconds: float = WAIT_SECONDS) -> None:
        ending = threading.Thread(target=self._shut_down, name="kv-disk-end", daemon=True)
        ending.start()
        ending.join(seconds)
        if ending.is_alive():
            raise KVError(f"a read or write of the disk tier did not end in {seconds:.0f} s: its folder stays locked")

    def _shut_down(self) -> None:
        self._reader.shutdown()
        self._worker.shutdown()

    def recount(self) -> None:
        """Raise :class:`KVError` if a counter is wrong."""
        self.poll()
        self.index.recount()

    def _reserve(self, wanted: Sequence[Payload]) -> list[Payload]:
        """Take room for as many pages as there can be, parents first; return them the other way round, to be written.

        What comes before one of them in its chain is not evicted for another.
        """
        keep = {payload.parent for payload in wanted}
        groups: dict[str, list[NewPage]] = {}
        for payload in wanted:
            groups.setdefault(payload.owner if payload.owner in self.index.quotas else "", []).append(payload.page)
        taken: set[bytes] = set()
        for group in groups.values():
            plan = self.index.prepare_store(group, keep)
            if plan is None:
                plan = self.index.prepare_store(group[: self.index.room_for(group, keep)], keep)
            if plan is not None:
                taken.update(page.key for page in plan.fresh)
                self._doomed += plan.evicted
        refused = {payload.key for payload in wanted} - taken
        batch: list[Payload] = []
        for payload in wanted:
            if payload.key not in taken:
                continue
            if payload.parent in refused and payload.parent not in self.table.numbers:  # of another owner
                self.index.complete_store([payload.key], stored=False)
                refused.add(payload.key)
            else:
                batch.append(payload)
        return batch[::-1]

    def _submit(self, batch: list[Payload]) -> None:
        """Let the worker delete what was evicted and write pages that have their room, in this order."""
        stored = {payload.key for payload in batch}
        doomed = [k for k in dict.fromkeys(self._doomed) if k in stored or self.index.lookup(k) is Lookup.MISS]
        self._doomed = []
        if not batch and not doomed:
            return
        size = sum(payload.data.nbytes for payload in batch)
        future = self._worker.submit(self._write, batch, doomed)
        self._writing.append(_Write(future, [payload.key for payload in batch], doomed, size))
        self._queued += size

    def _write(self, batch: list[Payload], doomed: list[bytes]) -> None:
        if doomed:
            self.store.delete(doomed)
        if batch:
            self.store.put([PageData(p.key, p.parent, p.buffer, p.owner) for p in batch])

    def _end_write(self, write: _Write) -> None:
        self._queued -= write.size
        error = write.future.exception()
        self.index.complete_store(write.keys, stored=error is None)
        if error is None:
            self.stored += len(write.keys)
            return
        self._doomed += [*write.doomed, *write.keys]  # what is left of them is still to be deleted
        if not isinstance(error, OSError):
            raise error
        self.skipped += len(write.keys)
        self.failures += 1
        self._retry_writes = self._clock() + RETRY_SECONDS

    def _begin_reads(self, keys: Sequence[bytes]) -> list[tuple[bytes, Future[bytes | None]]]:
        """Start to read the leading ``keys`` that are here, all at once: the reader may have several threads."""
        started: list[tuple[bytes, Future[bytes | None]]] = []
        for key in keys:
            future = self.begin_read(key)
            if future is None:
                break
            started.append((key, future))
        return started

    def _fail_read(self) -> None:
        self.failures += 1
        self._retry_reads = self._clock() + RETRY_SECONDS
