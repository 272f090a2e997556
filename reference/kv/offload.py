"""The tiers below the device: host memory, then disk.

What the device evicts goes to the host and, in the background, to the disk as well: by the time that the host needs
its room the page is safe below. A page that comes back stays where it was. Pages that a queued request will need are
brought from disk to host before its turn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import chain, islice, takewhile

from torch import Tensor

from gaugeblock.reference.kv.disk_tier import WAIT_SECONDS, DiskTier
from gaugeblock.reference.kv.host import HostTier
from gaugeblock.reference.kv.pages import KVError
from gaugeblock.reference.kv.payload import PageForm, Payload
from gaugeblock.reference.kv.table import PageTable
from gaugeblock.reference.kv.tier import Lookup, NewPage

SAVE_BATCH = 64  # pages written before the next are taken in hand


@dataclass(frozen=True)
class _Fetch:
    """A page on its way from disk to host."""

    page: NewPage
    future: Future[bytes | None]


class Offload:
    """Pages by key in up to two tiers over one table. All methods belong to one thread."""

    def __init__(self, form: PageForm, table: PageTable, host: HostTier, disk: DiskTier | None = None) -> None:
        self.form = form
        self.table = table
        self.host = host
        self.disk = disk
        self.prefetched = 0
        self.lost = 0  # pages that there was no room for any more
        self._fetches: deque[_Fetch] = deque()

    def lookup(self, key: bytes) -> Lookup:
        """Say whether a load would find a key now, or after a wait, or not."""
        says = self.host.index.lookup(key)
        if says is Lookup.HIT or self.disk is None:
            return says
        below = self.disk.lookup(key)
        return says if below is Lookup.MISS else below

    def prefix(self, keys: Sequence[bytes]) -> int:
        """Return how many leading keys are hits or on their way."""
        found = 0
        for key in keys:
            if self.lookup(key) is Lookup.MISS:
                break
            found += 1
        return found

    def lacks(self, key: bytes) -> bool:
        """Say whether a tier would take a page that it does not have: else there is no need to copy it."""
        if self.host.index.capacity and self.host.index.lookup(key) is Lookup.MISS:
            return True
        return self.disk is not None and self.disk.index.lookup(key) is Lookup.MISS

    def store(self, payloads: Sequence[Payload]) -> None:
        """Keep pages as well as the tiers can. Children first: what there is no room for is lost from the end."""
        self.poll()
        demoted: list[Payload] = []
        for payload in payloads:
            evicted = self.host.store(payload)
            demoted += evicted or []
        if self.disk is not None:
            self.disk.write([*demoted, *payloads])
        self.lost += len({payload.key for payload in (*demoted, *payloads)} - self.table.numbers.keys())

    def load(self, keys: Sequence[bytes]) -> list[Tensor]:
        """Return the bytes of leading ``keys``, as many as really come: a load that fails is a miss."""
        self.poll()
        keys = keys[: self.prefix(keys)]
        if any(self.host.index.lookup(key) is Lookup.PENDING for key in keys):
            self._end_fetches(wait=True)
        found: list[Tensor] = []
        while len(found) < len(keys):
            data = self.host.load(keys[len(found)])
            if data is not None:
                found.append(data)
                continue
            wanted = list(takewhile(lambda key: key not in self.host, keys[len(found) :]))
            read = [] if self.disk is None else self.disk.read(wanted)
            found += map(self.form.tensor, read)
            if len(read) < len(wanted):
                break
        self.touch(keys[: len(found)])
        return found

    def touch(self, keys: Sequence[bytes]) -> None:
        """Note that the pages of a chain were used."""
        self.host.index.touch(keys)
        if self.disk is not None:
            self.disk.index.touch(keys)

    def prefetch(self, chains: Sequence[Sequence[bytes]]) -> None:
        """Start to bring what lies on disk to the host, for chains in the order in which they will be needed.

        Takes at most half of the host, and none of the pages that an earlier chain of the same call needs.
        """
        self.poll()
        if self.disk is None:
            return
        left = self._prefetch_room()
        keep: list[bytes] = []
        for wanted in chains:
            here = wanted[: self.prefix(wanted)]
            self.touch(here)
            keep += here
            for key in here:
                if self.disk.lookup(key) is not Lookup.HIT or self.host.index.lookup(key) is not Lookup.MISS:
                    continue
                number = self.table.numbers[key]
                owner = self.disk.index.owner(key)
                page = NewPage(key, self.table.parents[number], self.table.sizes[number], owner)
                if page.size > left or not self._fetch(self.disk, page, keep):
                    return
                left -= page.size

    def poll(self) -> None:
        """Take in what has ended in the background."""
        if self.disk is not None:
            self.disk.poll()
            self._end_fetches(wait=False)

    def clear(self) -> None:
        """Forget everything, on disk too.

        Raises:
            KVError: the disk does not answer; the host has forgotten nothing then.
        """
        self._end_fetches(wait=True)
        if self.disk is not None:
            self.disk.clear()
        self.host.clear()

    def save(self, payloads: Iterable[Payload]) -> None:
        """Write to disk, and wait for it, what lies in the host alone and then ``payloads``, past the host.

        ``payloads`` in the order in which they would be evicted: a disk too small for all keeps the last. They are
        taken a batch at a time.
        """
        if self.disk is None:
            return
        self._end_fetches(wait=True)
        rest = chain(self.host.payloads(), payloads)
        while batch := list(islice(rest, SAVE_BATCH)):
            self.disk.write(batch)
            self.disk.settle()

    def close(self) -> None:
        """End what is on its way, and let go of the store's folder."""
        if self.disk is not None:
            self._end_fetches(wait=True)
            self.disk.close()

    def recount(self) -> None:
        """Count everything from scratch.

        Raises:
            KVError: a counter is wrong.
        """
        self.poll()
        self.host.recount()
        if self.disk is not None:
            self.disk.recount()
        actual = self.table.recounted_children()
        for key in {*actual, *self.table.numbers}:
            if self.table.children_of(key) != actual.get(key, 0):
                counted = self.table.children_of(key)
                raise KVError(f"page {key.hex()[:12]} counts {counted} children, has {actual.get(key, 0)}")

    def _fetch(self, disk: DiskTier, page: NewPage, keep: Sequence[bytes]) -> bool:
        """Take room and start to read; False if there is no room."""
        evicted = self.host.reserve([page], keep)
        if evicted is None:
            return False
        future = disk.begin_read(page.key)  # before what left the host could push it out there
        if future is None:
            self.host.give_up(page.key)
        else:
            self._fetches.append(_Fetch(page, future))
        disk.write(evicted)
        return True

    def _drop_fetches(self, disk: DiskTier) -> None:
        """Do without the pages that are on their way behind one that did not come."""
        while self._fetches:
            fetch = self._fetches.popleft()
            disk.drop_read(fetch.page.key, fetch.future)
            self.host.give_up(fetch.page.key)

    def _prefetch_room(self) -> int:
        """Return how many bytes may be on their way from disk to host beside those that are."""
        return self.host.index.capacity // 2 - sum(fetch.page.size for fetch in self._fetches)

    def _end_fetches(self, *, wait: bool) -> None:
        """Take in what was read, in order. One that does not come in time is the last that is waited for."""
        while self.disk is not None and self._fetches and (wait or self._fetches[0].future.done()):
            fetch = self._fetches.popleft()
            data = self.disk.end_read(fetch.page.key, fetch.future, WAIT_SECONDS)
            if data is None:
                self.host.give_up(fetch.page.key)
                if not fetch.future.done():
                    self._drop_fetches(self.disk)
                continue
            self.host.fill(Payload(fetch.page.key, fetch.page.parent, self.form.tensor(data), fetch.page.owner))
            self.prefetched += 1
