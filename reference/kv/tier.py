"""One tier of pages by bytes: what it holds, who is reading or writing, and what goes when room is needed.

It moves no bytes. A store has two phases: :meth:`Tier.prepare_store` takes the room, whoever moves the bytes says by
:meth:`Tier.complete_store` whether they arrived. A load pins its pages between :meth:`Tier.prepare_load` and
:meth:`Tier.complete_load`.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from enum import Enum

from gaugeblock.reference.kv.pages import KVError
from gaugeblock.reference.kv.policies import Policy
from gaugeblock.reference.kv.table import PageTable


class Lookup(Enum):
    """What a tier says of a key: its bytes are here, are being written, or neither."""

    HIT = "hit"
    PENDING = "pending"
    MISS = "miss"


@dataclass(frozen=True)
class NewPage:
    """A page that somebody wants stored. ``size`` in bytes; ``owner`` is charged for it."""

    key: bytes
    parent: bytes
    size: int
    owner: str = ""


@dataclass(frozen=True)
class StorePlan:
    """The pages whose bytes are now to be moved, and the keys that went to make room for them."""

    fresh: list[NewPage]
    evicted: list[bytes]


_ABSENT, _PENDING, _READY = 0, 1, 2
_SAYS = (Lookup.MISS, Lookup.PENDING, Lookup.HIT)


class Tier:
    """Pages by key within ``capacity`` bytes, over a table that several tiers share; ``bit`` is this one's in it.

    ``quotas``: bytes that an owner may hold at most; owners that are not named share what the capacity gives.
    A page may go when nobody reads or writes it, and another tier has it too or it leaves no child behind anywhere.

    Raises:
        KVError: a negative capacity or quota.
    """

    def __init__(
        self,
        name: str,
        capacity: int,
        policy: Policy,
        table: PageTable,
        bit: int,
        quotas: Mapping[str, int] | None = None,
    ) -> None:
        if capacity < 0 or any(quota < 0 for quota in (quotas or {}).values()):
            raise KVError(f"tier {name}: capacity and quotas are bytes >= 0, got {capacity} and {dict(quotas or {})}")
        self.name = name
        self.capacity = capacity
        self.policy = policy
        self.table = table
        self.quotas = dict(quotas or {})
        self.used = 0
        self.count = 0
        self.evictions = 0
        self.used_by: dict[str, int] = {}
        self._bit = bit
        self._owners: dict[int, str] = {}  # of the pages whose owner has a quota
        self._state = table.column(bytearray())
        self._pins = table.column(array("i"))

    def lookup(self, key: bytes) -> Lookup:
        """Say what is here of a key. Changes nothing."""
        number = self.table.numbers.get(key)
        return Lookup.MISS if number is None else _SAYS[self._state[number]]

    def prefix(self, keys: Iterable[bytes]) -> int:
        """Return how many leading keys are hits."""
        numbers, state, found = self.table.numbers, self._state, 0
        for key in keys:
            number = numbers.get(key)
            if number is None or state[number] != _READY:
                break
            found += 1
        return found

    def prepare_store(self, pages: Sequence[NewPage], keep: Collection[bytes] = ()) -> StorePlan | None:
        """Take room for the pages that are not here yet, evicting as many as need be.

        No page of the same call is evicted, nor one of ``keep``. Returns None, with nothing changed, if there cannot be
        enough room. Pages that are here, or on their way, are left out of the plan.
        """
        numbers, state = self.table.numbers, self._state
        asked = {page.key: page for page in pages}
        fresh = [page for key, page in asked.items() if (n := numbers.get(key)) is None or not state[n]]
        victims = self._choose(fresh, asked.keys() | keep if keep else asked.keys())
        if victims is None:
            return None
        evicted = [self.table.keys[number] for number in victims]
        for number in victims:
            self._remove(number, evicted=True)
        self._enter(fresh)
        self.evictions += len(evicted)
        return StorePlan(fresh, evicted)

    def room_for(self, pages: Sequence[NewPage], keep: Collection[bytes] = ()) -> int:
        """Return how many of the leading pages, none of them here, one :meth:`prepare_store` could take."""

        def is_refused(count: int) -> bool:
            asked = {page.key for page in pages[:count]}
            return self._choose(pages[:count], asked.union(keep)) is None

        return bisect_left(range(1, len(pages) + 1), True, key=is_refused)

    def owner(self, key: bytes) -> str:
        """Return who is charged for a page; "" if its owner has no quota, or it is not here."""
        number = self.table.numbers.get(key)
        return "" if number is None else self._owners.get(number, "")

    def complete_store(self, keys: Iterable[bytes], *, stored: bool = True) -> None:
        """The bytes of prepared pages have arrived; or not, and the pages are forgotten.

        Raises:
            KVError: a page is not on its way.
        """
        numbers, state, where, bit = self.table.numbers, self._state, self.table.where, self._bit
        for key in keys:
            number = numbers.get(key, -1)
            if number < 0 or state[number] != _PENDING:
                raise self._no_such(key, "is not on its way")
            if stored:
                state[number] = _READY
                where[number] |= bit
            else:
                self._remove(number, evicted=False)

    def adopt(self, page: NewPage) -> None:
        """Enter a page whose bytes are here already (after a restart), whatever the capacity; see :meth:`shrink`."""
        if self.lookup(page.key) is Lookup.MISS:
            self._enter([page])
            self.complete_store([page.key])

    def shrink(self) -> list[bytes]:
        """Evict what is above a quota or the capacity, as far as pages may go, and return the keys."""
        victims: list[int] = []
        for owner, quota in self.quotas.items():
            victims += self._choose_bytes(self.used_by.get(owner, 0) - quota, set(), owner, None, victims)
        freed = sum(self.table.sizes[n] for n in victims)
        victims += self._choose_bytes(self.used - freed - self.capacity, set(), None, None, victims)
        keys = [self.table.keys[number] for number in victims]
        for number in victims:
            self._remove(number, evicted=True)
        self.evictions += len(keys)
        return keys

    def prepare_load(self, keys: Sequence[bytes]) -> bool:
        """Pin pages, all or none: they stay until :meth:`complete_load`. False if one of them is not a hit."""
        if any(self.lookup(key) is not Lookup.HIT for key in keys):
            return False
        for key in keys:
            self._pins[self.table.numbers[key]] += 1
        return True

    def complete_load(self, keys: Iterable[bytes]) -> None:
        """Unpin pages.

        Raises:
            KVError: one of them is not pinned.
        """
        for key in keys:
            number = self._expect(key, _READY, "is not here")
            if not self._pins[number]:
                raise KVError(f"tier {self.name}: page {key.hex()[:12]} is not pinned: a load was completed twice")
            self._pins[number] -= 1

    def touch(self, keys: Sequence[bytes]) -> None:
        """Note that the pages of a chain were used, the first one last: children go before their parents."""
        numbers, state, touch = self.table.numbers, self._state, self.policy.touch
        for key in reversed(keys):
            number = numbers.get(key)
            if number is not None and state[number]:
                touch(number)

    def discard(self, key: bytes) -> None:
        """Forget a page whose bytes turned out to be gone.

        Raises:
            KVError: it is not here, or pinned.
        """
        number = self._expect(key, _READY, "is not here")
        if self._pins[number]:
            raise KVError(f"tier {self.name}: page {key.hex()[:12]} is being read and cannot be discarded")
        self._remove(number, evicted=False)

    def clear(self) -> list[bytes]:
        """Forget every page that is neither pinned nor on its way; return the keys."""
        numbers = [n for n in self.table.numbers.values() if self._state[n] == _READY]
        gone = [number for number in numbers if not self._pins[number]]
        keys = [self.table.keys[number] for number in gone]
        for number in gone:
            self._remove(number, evicted=False)
        return keys

    def keys(self) -> list[bytes]:
        """Return the keys of all hits."""
        return [key for key in self.table.numbers if self.lookup(key) is Lookup.HIT]

    def recount(self) -> None:
        """Count everything from scratch.

        Raises:
            KVError: a counter is wrong, or there is more here than the capacity.
        """
        held = [n for n in self.table.numbers.values() if self._state[n]]
        actual = sum(self.table.sizes[n] for n in held)
        if actual != self.used or len(held) != self.count or actual > self.capacity:
            raise KVError(
                f"{self.name} tier: counter {self.used}, stored {actual}, capacity {self.capacity} bytes; "
                f"{self.count} pages counted, {len(held)} held"
            )
        for n in held:
            ready = self._state[n] == _READY
            if ready != bool(self.table.where[n] & self._bit):
                raise KVError(f"{self.name} tier: page {n} is {'ready' if ready else 'on its way'}, the table differs")
        ordered = sorted(self.policy.victims())
        if ordered != sorted(held):
            raise KVError(f"{self.name} tier: the policy orders {len(ordered)} pages, {len(held)} are held")

    def pinned(self) -> int:
        """Return how many loads are open."""
        return sum(self._pins)

    # --- choosing

    def _choose(self, fresh: Sequence[NewPage], keep: Set[bytes]) -> list[int] | None:
        incoming = fresh[0].key if len(fresh) == 1 else None
        victims: list[int] = []
        for owner, quota in self.quotas.items():
            wanted = sum(page.size for page in fresh if page.owner == owner)
            excess = self.used_by.get(owner, 0) + wanted - quota if wanted else 0
            if excess > 0:
                own = self._choose_bytes(excess, keep, owner, incoming)
                if sum(self.table.sizes[n] for n in own) < excess:
                    return None
                victims += own
        freed = sum(self.table.sizes[n] for n in victims)
        excess = self.used - freed + sum(page.size for page in fresh) - self.capacity
        if excess > 0:
            more = self._choose_bytes(excess, keep, None, incoming, victims)
            if sum(self.table.sizes[n] for n in more) < excess:
                return None
            victims += more
        return victims

    def _choose_bytes(
        self,
        excess: int,
        keep: Set[bytes],
        owner: str | None,
        incoming: bytes | None,
        chosen: Sequence[int] = (),
    ) -> list[int]:
        """Return pages of ``excess`` bytes or more that may go, children before parents; fewer if there are no more."""
        taken = set(chosen)
        leaving: dict[bytes, int] = {}  # by parent: children whose last copy goes
        for number in chosen:
            self._note(number, leaving)
        found: list[int] = []
        passed: set[int] = set()  # their turn came before that of their children
        table = self.table
        for number in self.policy.victims(incoming):
            if number in taken or not self._is_free(number, keep, owner):
                continue
            if self._leaves_orphans(number, leaving):
                passed.add(number)
                continue
            while excess > 0:
                found.append(number)
                excess -= table.sizes[number]
                self._note(number, leaving)
                parent = table.numbers.get(table.parents[number]) if passed else None
                if parent not in passed or self._leaves_orphans(parent, leaving):
                    break
                passed.remove(parent)
                number = parent
            if excess <= 0:
                break
        return found

    def _is_free(self, number: int, keep: Set[bytes], owner: str | None) -> bool:
        """Tell whether nobody needs a page right now."""
        if self._state[number] != _READY or self._pins[number]:
            return False
        return self.table.keys[number] not in keep and (owner is None or self._owners.get(number) == owner)

    def _leaves_orphans(self, number: int, leaving: Mapping[bytes, int]) -> bool:
        """Tell whether this is the last copy of a page that has children somewhere, those that leave not counted."""
        table = self.table
        children = table.children[number]
        if not children or table.where[number] != self._bit:
            return False
        return children > leaving.get(table.keys[number], 0)

    def _note(self, number: int, leaving: dict[bytes, int]) -> None:
        if self.table.holds[number] == 1:
            parent = self.table.parents[number]
            leaving[parent] = leaving.get(parent, 0) + 1

    # --- entering and leaving

    def _enter(self, pages: Sequence[NewPage]) -> None:
        table, add = self.table, self.policy.add
        numbers = [table.enter(page.key, page.parent, page.size) for page in pages]
        for page, number in zip(reversed(pages), reversed(numbers), strict=True):  # children are older: they go first
            self._state[number] = _PENDING
            self.used += page.size
            if self.quotas and page.owner in self.quotas:
                self._owners[number] = page.owner
                self.used_by[page.owner] = self.used_by.get(page.owner, 0) + page.size
            add(number, page.key, page.size)
        self.count += len(pages)

    def _remove(self, number: int, *, evicted: bool) -> None:
        table = self.table
        self.policy.remove(number, evicted=evicted)
        self._state[number] = _ABSENT
        table.where[number] &= ~self._bit
        size = table.sizes[number]
        self.used -= size
        self.count -= 1
        if self._owners and (owner := self._owners.pop(number, None)) is not None:
            self.used_by[owner] -= size
        table.leave(number)

    def _expect(self, key: bytes, state: int, otherwise: str) -> int:
        number = self.table.numbers.get(key)
        if number is None or self._state[number] != state:
            raise self._no_such(key, otherwise)
        return number

    def _no_such(self, key: bytes, why: str) -> KVError:
        return KVError(f"tier {self.name}: page {key.hex()[:12]} {why}")
