"""The KV manager as a state machine: content belongs to its tokens, counters to reality, hits to a plain model."""

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gaugeblock.reference.kv.build import build_offload
from gaugeblock.reference.kv.keys import chain_keys, root_key
from gaugeblock.reference.kv.manager import KVManager
from gaugeblock.reference.kv.pages import KVError
from gaugeblock.reference.kv.storage import KVShape, KVStorage

SHAPE = KVShape(layers=1, kv_heads=1, head_dim=1, page_size=2)
ROOT = root_key("model", "float32", SHAPE)
TOKENS = st.lists(st.integers(0, 1), min_size=1, max_size=10)


def manager(pages, host_pages=0, **options):
    offload = build_offload(SHAPE.page_form, host_pages * SHAPE.page_bytes)
    return KVManager(KVStorage(SHAPE, pages), pages, ROOT, offload, **options)


def pattern(tokens, position):
    """What a real model's KV would be: a function of all tokens up to the position."""
    value = 1
    for token in tokens[: position + 1]:
        value = (value * 31 + token + 7) % 65521
    return float(value)


class ManagerMachine(RuleBasedStateMachine):
    """Sequences come, grow, are computed in pieces and leave."""

    pages, host_pages = 8, 5

    def __init__(self):
        super().__init__()
        self.kv = manager(self.pages, self.host_pages)
        self.live = []  # [tokens, computed, allocation]

    def pick(self, data):
        return data.draw(st.sampled_from(self.live))

    def slot(self, allocation, position):
        return allocation.pages[position // 2], position % 2

    def expected_hit(self, tokens, limit):
        """The longest contiguous run of pages that device or host holds."""
        keys, hit = chain_keys(ROOT, tokens[:limit], 2), 0
        while hit < len(keys) and (self.kv.index.get(keys[hit]) is not None or keys[hit] in self.kv.offload.host):
            hit += 1
        return 2 * hit

    @rule(tokens=TOKENS, data=st.data())
    def begin(self, tokens, data):
        limit = data.draw(st.integers(0, len(tokens) - 1))
        hit, room = self.expected_hit(tokens, limit), self.kv.pool.free + self.kv.pool.idle
        before = (list(self.kv.pool.refs), self.kv.pool.free, len(self.kv.index), len(self.kv.offload.host))
        allocation = self.kv.begin(tokens, limit)
        if allocation is None:
            assert before == (list(self.kv.pool.refs), self.kv.pool.free, len(self.kv.index), len(self.kv.offload.host))
            assert self.kv.pages_for(len(tokens)) > room
            return
        assert allocation.hit_tokens == hit
        assert len(allocation.pages) == self.kv.pages_for(len(tokens))
        self.live.append([tokens, hit, allocation])

    @precondition(lambda self: self.live)
    @rule(data=st.data(), more=TOKENS)
    def extend(self, data, more):
        entry = self.pick(data)
        longer = entry[0] + more
        missing = self.kv.pages_for(len(longer)) - len(entry[2].pages)
        fits = missing <= self.kv.pool.free + self.kv.pool.idle
        assert self.kv.extend(entry[2], len(longer)) == fits
        if fits:
            entry[0] = longer

    @precondition(lambda self: self.live)
    @rule(data=st.data(), count=st.integers(1, 5))
    def compute(self, data, count):
        entry = self.pick(data)
        tokens, computed, allocation = entry
        end = min(len(tokens), computed + count)
        for position in range(computed, end):
            page, offset = self.slot(allocation, position)
            self.kv.storage.k[0, page, offset] = pattern(tokens, position)
            self.kv.storage.v[0, page, offset] = -pattern(tokens, position)
        self.kv.commit(allocation, tokens, end)
        entry[1] = end

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def release(self, data):
        entry = self.pick(data)
        self.live.remove(entry)
        self.kv.release(entry[2])
        with pytest.raises(KVError, match="double free"):
            self.kv.release(entry[2])

    @rule()
    def flush(self):
        assert self.kv.flush() == (not self.live)
        if not self.live:
            assert (self.kv.pool.free, len(self.kv.index), len(self.kv.offload.host)) == (self.pages, 0, 0)

    @invariant()
    def counters_agree(self):
        self.kv.recount()
        pool = self.kv.pool
        assert pool.free + pool.idle + pool.held == self.pages
        if not self.live:
            assert pool.held == 0

    @invariant()
    def content_belongs_to_its_tokens(self):
        for tokens, computed, allocation in self.live:
            for position in range(computed):
                page, offset = self.slot(allocation, position)
                want = pattern(tokens, position)
                assert self.kv.storage.k[0, page, offset].item() == want, (tokens, position)
                assert self.kv.storage.v[0, page, offset].item() == -want, (tokens, position)


class WithoutHost(ManagerMachine):
    host_pages = 0


TestManager = ManagerMachine.TestCase
TestManager.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestWithoutHost = WithoutHost.TestCase
TestWithoutHost.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)


def fill(kv, tokens):
    """Compute and leave a sequence."""
    allocation = kv.begin(tokens, 0)
    for position in range(len(tokens)):
        kv.storage.k[0, allocation.pages[position // 2], position % 2] = pattern(tokens, position)
    kv.commit(allocation, tokens, len(tokens))
    kv.release(allocation)


def hit(kv, tokens):
    allocation = kv.begin(tokens, len(tokens))
    kv.release(allocation)
    return allocation.hit_tokens


def test_the_least_recently_used_end_of_a_chain_goes_first():
    kv = manager(6)
    fill(kv, [0, 0, 0, 0])
    fill(kv, [1, 1, 1, 1])
    assert hit(kv, [0, 0, 0, 0]) == 4, "now the chain of ones is the older"
    fill(kv, [2, 2, 2, 2, 2, 2])
    assert [hit(kv, [t] * 4) for t in (0, 1, 2)] == [4, 2, 4]


def test_a_promoted_page_is_bit_identical_even_if_its_eviction_fills_the_host():
    kv = manager(2, host_pages=2)
    fill(kv, [0, 0, 0, 0])
    fill(kv, [1, 1, 1, 1])
    allocation = kv.begin([0, 0, 0, 0], 4)
    assert allocation.hit_tokens == 4
    got = kv.storage.k[0, allocation.pages].flatten()
    assert torch.equal(got, torch.tensor([pattern([0] * 4, i) for i in range(4)]))
    assert (kv.promoted, kv.evicted) == (2, 4)
    kv.recount()


def test_spare_pages_are_respected():
    kv = manager(4)
    assert kv.begin([0] * 6, 0, spare=2) is None
    assert kv.begin([0] * 6, 0, spare=1) is not None


def test_without_prefix_cache_nothing_stays():
    kv = manager(4, prefix_cache=False)
    fill(kv, [0, 0, 0, 0])
    assert (kv.pool.free, hit(kv, [0, 0, 0, 0])) == (4, 0)


@pytest.mark.parametrize("damage", ["leak", "refcount", "orphan", "host"])
def test_recount_sees_damage(damage):
    kv = manager(4, host_pages=1)
    fill(kv, [0, 0, 0, 0])
    kv.recount()
    if damage == "leak":
        kv.pool.release(kv.pool.allocate(1)[0])
    elif damage == "refcount":
        kv.pool.refs[0] += 1
    elif damage == "orphan":
        next(iter(kv.index)).children = 0
    else:
        kv.offload.host.index.used = 1
    with pytest.raises(KVError):
        kv.recount()


@pytest.mark.parametrize(("host_pages", "copies"), [(0, 0), (8, 2)])
def test_an_evicted_page_is_copied_only_for_a_tier_that_lacks_it(host_pages, copies, monkeypatch):
    kv = manager(2, host_pages=host_pages)
    copied, read_page = [], kv.storage.read_page
    monkeypatch.setattr(kv.storage, "read_page", lambda page: copied.append(page) or read_page(page))
    fill(kv, [0, 0, 0, 0])
    fill(kv, [1, 1, 1, 1])
    assert (len(copied), kv.evicted) == (copies, 2)
    hit(kv, [0, 0, 0, 0])  # with a host its pages come back, and leave again below
    before = len(copied)
    fill(kv, [1, 1, 1, 1])
    assert kv.evicted >= 4
    assert len(copied) == before
