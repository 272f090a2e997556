"""Page pool, keys, prefix index and host tier, each against a plain model."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gaugeblock.reference.kv.host import HostTier
from gaugeblock.reference.kv.keys import chain_keys, page_key, root_key
from gaugeblock.reference.kv.pages import KVError, PagePool
from gaugeblock.reference.kv.payload import Payload
from gaugeblock.reference.kv.policies.lru import LRU
from gaugeblock.reference.kv.prefix import PrefixIndex
from gaugeblock.reference.kv.storage import KVShape, KVStorage
from gaugeblock.reference.kv.table import PageTable

MODEST = settings(max_examples=60, stateful_step_count=30, deadline=None)
SHAPE = KVShape(layers=2, kv_heads=1, head_dim=2, page_size=4)


class PoolMachine(RuleBasedStateMachine):
    """The pool against a dictionary of refcounts; pages that are absent from it are free."""

    def __init__(self):
        super().__init__()
        self.pool = PagePool(5)
        self.refs = {}

    @rule(count=st.integers(0, 6))
    def allocate(self, count):
        if count > 5 - len(self.refs):
            with pytest.raises(KVError, match=f"{count} pages wanted"):
                self.pool.allocate(count)
            return
        pages = self.pool.allocate(count)
        assert len(set(pages) - set(self.refs)) == count
        self.refs.update(dict.fromkeys(pages, 1))

    @rule(page=st.integers(0, 4))
    def retain(self, page):
        if page not in self.refs:
            with pytest.raises(KVError, match=f"page {page} is free"):
                self.pool.retain(page)
            return
        self.pool.retain(page)
        self.refs[page] += 1

    @rule(page=st.integers(0, 4))
    def release(self, page):
        if not self.refs.get(page):
            with pytest.raises(KVError, match=f"double free of page {page}"):
                self.pool.release(page)
            return
        self.refs[page] -= 1
        assert self.pool.release(page) == self.refs[page]

    @rule(page=st.integers(0, 4))
    def reclaim(self, page):
        if self.refs.get(page) == 0:
            self.pool.reclaim(page)
            del self.refs[page]
            return
        with pytest.raises(KVError, match="cannot be reclaimed"):
            self.pool.reclaim(page)

    @invariant()
    def counters_agree(self):
        held = sum(n > 0 for n in self.refs.values())
        assert (self.pool.free, self.pool.held) == (5 - len(self.refs), held)
        assert self.pool.idle == len(self.refs) - held
        assert [self.pool.is_free(p) for p in range(5)] == [p not in self.refs for p in range(5)]


TestPool = PoolMachine.TestCase
TestPool.settings = MODEST


class IndexMachine(RuleBasedStateMachine):
    """The index against a dictionary {chain: time}, with chains as tuples."""

    def __init__(self):
        super().__init__()
        self.index = PrefixIndex(LRU(0), 8)
        self.used = {}
        self.pages = {}
        self.clock = 0

    def key(self, chain):
        return bytes(chain)

    def parent(self, chain):
        return self.key(chain[:-1]) if len(chain) > 1 else b"root"

    @rule(chain=st.lists(st.integers(0, 2), min_size=1, max_size=4).map(tuple))
    def insert(self, chain):
        page = max(self.pages, default=-1) + 1
        if chain in self.used or (len(chain) > 1 and chain[:-1] not in self.used):
            with pytest.raises(KVError):
                self.index.insert(self.key(chain), self.parent(chain), page, first=len(chain) == 1)
            return
        self.index.insert(self.key(chain), self.parent(chain), page, first=len(chain) == 1)
        self.clock += 1
        self.used[chain], self.pages[page] = self.clock, chain

    @rule(chain=st.lists(st.integers(0, 2), max_size=4).map(tuple))
    def match_and_touch(self, chain):
        keys = [self.key(chain[: i + 1]) for i in range(len(chain))]
        want = 0
        while want < len(chain) and chain[: want + 1] in self.used:
            want += 1
        assert [n.key for n in self.index.match(keys)] == keys[:want]
        self.index.touch(keys[:want])
        for end in range(want, 0, -1):
            self.clock += 1
            self.used[chain[:end]] = self.clock

    @precondition(lambda self: self.used)
    @rule(count=st.integers(0, 4), pinned=st.sets(st.integers(0, 10)))
    def evict(self, count, pinned):
        want, left = [], dict(self.used)
        held = {self.pages[p] for p in pinned if p in self.pages}
        for _ in range(count):
            leaves = [c for c in left if c not in held and not any(o[:-1] == c for o in left if o)]
            if not leaves:
                break
            oldest = min(leaves, key=left.get)
            want.append(oldest)
            del left[oldest]
        before = {n.key for n in self.index}
        chosen = self.index.victims(count, lambda page: page not in pinned)
        assert {n.key for n in self.index} == before, "choosing must change nothing"
        assert [n.key for n in chosen] == [self.key(c) for c in want]
        for node in chosen:
            self.index.remove(node, evicted=True)
        self.used = left
        self.pages = {page: chain for page, chain in self.pages.items() if chain in left}

    @rule(chain=st.lists(st.integers(0, 2), min_size=1, max_size=3).map(tuple))
    def a_parent_cannot_be_removed(self, chain):
        node = self.index.get(self.key(chain))
        if node is not None and node.children:
            with pytest.raises(KVError, match="orphans"):
                self.index.remove(node, evicted=True)

    @invariant()
    def agrees(self):
        self.index.recount()
        assert {n.key for n in self.index} == {self.key(c) for c in self.used}


TestIndex = IndexMachine.TestCase
TestIndex.settings = MODEST


class HostMachine(RuleBasedStateMachine):
    """The host tier against an ordered list of (key, value); a page is 8 bytes, the budget three pages."""

    def __init__(self):
        super().__init__()
        self.host = HostTier(24, LRU(24), PageTable())
        self.pages = []

    @rule(key=st.integers(0, 5), value=st.integers(0, 99))
    def store(self, key, value):
        """A page that is here stays as it is: its key names its bytes."""
        evicted = self.host.store(Payload(bytes([key]), b"root", torch.tensor([value])))
        if key not in [p[0] for p in self.pages]:
            assert [(p.key[0], p.data.item()) for p in evicted] == self.pages[:-2]
            self.pages = [*self.pages, (key, value)][-3:]

    @rule(key=st.integers(0, 5))
    def load(self, key):
        found = [p for p in self.pages if p[0] == key]
        data = self.host.load(bytes([key]))
        assert (data is None) == (not found)
        if found:
            assert data.item() == found[0][1]
            self.host.index.touch([bytes([key])])
            self.pages = [*[p for p in self.pages if p[0] != key], found[0]]

    @rule()
    def too_large_is_refused(self):
        assert self.host.store(Payload(b"large", b"root", torch.zeros(4, dtype=torch.int64))) is None

    @invariant()
    def agrees(self):
        self.host.recount()
        assert self.host.index.used == 8 * len(self.pages) <= 24
        assert all(bytes([key]) in self.host for key, _ in self.pages)


TestHost = HostMachine.TestCase
TestHost.settings = MODEST


@given(st.lists(st.integers(0, 2), max_size=20), st.lists(st.integers(0, 2), max_size=20))
def test_keys_are_equal_exactly_as_far_as_the_tokens(a, b):
    keys_a, keys_b = chain_keys(b"root", a, 4), chain_keys(b"root", b, 4)
    assert len(keys_a) == len(a) // 4
    for i, (x, y) in enumerate(zip(keys_a, keys_b, strict=False)):
        assert (x == y) == (a[: 4 * i + 4] == b[: 4 * i + 4])


def test_roots_differ_by_every_field_and_never_meet_a_page_key():
    shapes = [SHAPE, KVShape(3, 1, 2, 4), KVShape(2, 2, 2, 4), KVShape(2, 1, 4, 4), KVShape(2, 1, 2, 8)]
    roots = {root_key(m, t, s) for m in ("m", "n") for t in ("float32", "bfloat16") for s in shapes}
    assert len(roots) == 20
    root = root_key("m", "float32", SHAPE)
    assert page_key(root, [1, 2]) != page_key(page_key(root, [1]), [2])
    assert page_key(root, [1]) != page_key(root, [256])


def test_a_page_moves_bit_identical_and_alone():
    storage = KVStorage(SHAPE, 6)
    storage.k.normal_()
    storage.v.normal_()
    rest = [p for p in range(6) if p != 4]
    before = storage.k[:, rest].clone()
    data = storage.read_page(2)
    assert data.nbytes == SHAPE.page_bytes
    storage.write_page(4, data)
    assert torch.equal(storage.read_page(4), data)
    assert torch.equal(storage.k[:, rest], before)
