"""The state machine of KV managers: right ones pass, wrong ones are found by a short way, slow and dead ones end."""

import sys
from collections import OrderedDict

import pytest

from gaugeblock.fixtures.envs import find
from gaugeblock.fixtures.errors import EnvironmentFault, KitError, TargetFault
from gaugeblock.fixtures.targets import kv_remote
from gaugeblock.fixtures.targets.kv_machine import run_machine
from gaugeblock.fixtures.targets.kv_oracle import contents, difference, name_of, pages_of, prefix_of
from gaugeblock.fixtures.targets.kv_reference import make_kv_target
from gaugeblock.fixtures.targets.kv_target import Hold, KVTarget, Prefix, Usage, checked, load_kv, make_target


class OneTier(KVTarget):
    """The least that a target is: a dictionary of pages in one tier, oldest end of a chain out first."""

    name, page_tokens, page_bytes = "one tier", 2, 8
    capabilities = frozenset({"adapter", "salt"})

    def __init__(self, pages, below=0):
        self.room = pages
        self.kept: OrderedDict[Prefix, bytes] = OrderedDict()
        self.held: list[Hold] = []

    def store(self, prefix, pages):
        wanted = pages_of(prefix, self.page_tokens)
        busy = {page for hold in self.held for page in hold.ref} | set(wanted)
        while len(self.kept.keys() | set(wanted)) > self.room:
            victims = [page for page in self.kept if page not in busy and not self.parents(page)]
            if not victims:
                return self.lookup(prefix)
            del self.kept[victims[0]]
        self.kept.update(zip(wanted, pages, strict=True))
        return len(wanted)

    def parents(self, page):
        return any(len(other.tokens) > len(page.tokens) and page in pages_of(other, 2) for other in self.kept)

    def lookup(self, prefix):
        pages = pages_of(prefix, self.page_tokens)
        return next((count for count, page in enumerate(pages) if page not in self.kept), len(pages))

    def hold(self, prefix):
        pages = pages_of(prefix, self.page_tokens)[: self.lookup(prefix)]
        self.held.append(Hold(len(pages), pages))
        return self.held[-1]

    def read(self, hold):
        return [self.kept[page] for page in hold.ref]

    def release(self, hold):
        self.held.remove(hold)

    def usage(self):
        return {"memory": Usage(8 * len(self.kept), 8 * self.room)}

    def audit(self):
        return len(self.held)

    def clear(self):
        self.kept.clear()

    def close(self):
        pass


def test_the_least_target_passes():
    tally = run_machine(lambda: OneTier(6), runs=30, steps=30)
    tally.require()
    assert tally.lost > 0, "nothing was crowded out"
    assert tally.evicted == tally.pending == tally.restarts == 0, "rules of what it does not claim"


class Forgetful(OneTier):
    def store(self, prefix, pages):  # takes the last page for stored
        return super().store(prefix, pages) if len(pages) < 3 else super().store(prefix, pages) - 1


class Unguarded(OneTier):
    def store(self, prefix, pages):
        held, self.held = self.held, []
        try:
            return super().store(prefix, pages)
        finally:
            self.held = held


class Shared(OneTier):
    def store(self, prefix, pages):
        return super().store(Prefix(prefix.tokens, prefix.adapter), pages)

    def lookup(self, prefix):
        return super().lookup(Prefix(prefix.tokens, prefix.adapter))

    def hold(self, prefix):
        return super().hold(Prefix(prefix.tokens, prefix.adapter))


class Sticky(OneTier):
    def release(self, hold):
        pass


@pytest.mark.parametrize(
    ("wrong", "message", "calls"),
    [
        (Forgetful, "pages were kept although there was room|kept, a lookup finds", 2),
        (Unguarded, "held pages are not found any more", 4),
        (Shared, "pages are found, the tiers count|a lookup found 0 of them|of this prefix were stored", 4),
        (Sticky, "holds are counted while nothing is held", 3),
    ],
)
def test_a_wrong_target_is_found_by_a_short_way(wrong, message, calls):
    with pytest.raises(TargetFault, match=message) as caught:
        run_machine(lambda: wrong(5), runs=60, steps=30)
    trail = str(caught.value).partition("\nafter: ")[2].split("; ")
    assert len(trail) <= calls, trail


def test_what_raises_is_the_targets_fault_and_the_way_there_is_told():
    class Raising(OneTier):
        def hold(self, prefix):
            raise ZeroDivisionError("its own")

    with pytest.raises(TargetFault, match=r"(?s)hold \w+.* raised ZeroDivisionError: its own.*after: .*hold"):
        run_machine(lambda: Raising(5), runs=20, steps=20)


def test_it_ends_in_time_and_still_tells_what_it_found():
    assert run_machine(lambda: OneTier(5), runs=10_000, steps=50, seconds=0.5).steps > 10
    with pytest.raises(TargetFault, match="is held"):
        run_machine(lambda: Sticky(5), runs=10_000, steps=50, seconds=0.5)


def test_no_run_that_proves_nothing_counts():
    with pytest.raises(AssertionError, match="never happened: hits"):
        run_machine(lambda: OneTier(5), runs=1, steps=1).require()


@pytest.mark.parametrize(("pages", "below"), [(4, 4), (8, 3), (3, 20)])
def test_the_reference_agrees_at_other_sizes_and_with_other_draws(pages, below):
    tally = run_machine(lambda: make_kv_target(pages, below), runs=15, steps=40, seed=pages)
    assert tally.hits > 5


@pytest.mark.slow
def test_the_reference_agrees_for_ten_thousand_steps():
    tally = run_machine(lambda: make_kv_target(5, 8), runs=300, steps=50, seed=7, seconds=240)
    tally.require()
    assert tally.steps > 10_000


def test_words_and_contents_name_what_a_page_belongs_to():
    prefix = prefix_of("abc", 4, adapter="x", tail=1)
    assert name_of(prefix, 4) == "abc (adapter x, and a token)"
    pages = pages_of(prefix, 4)
    assert [len(page.tokens) for page in pages] == [4, 8, 12]
    data = [contents(page, 16) for page in pages]
    assert len(set(data)) == 3
    assert difference(data, pages, 16) is None
    assert "2 pages were read" in difference(data[:2], pages, 16)
    assert "page 2 of 3" in difference([data[0], bytes(16), data[2]], pages, 16)
    assert contents(pages[0], 16) != contents(prefix_of("a", 4), 16), "the adapter is not in the contents"


def test_a_factory_is_named_by_module_or_by_name():
    assert load_kv("gaugeblock.fixtures.targets.kv_reference") is make_kv_target
    target = load_kv("gaugeblock.fixtures.targets.kv_reference:ReferenceKV")(2, 2)
    assert target.page_bytes > 0
    target.close()
    with pytest.raises(KitError, match="no function make_kv_target"):
        load_kv("gaugeblock.fixtures.targets.kv_oracle")
    with pytest.raises(KitError, match="cannot import"):
        load_kv("gaugeblock.no_such_module")


def test_a_factory_that_makes_no_manager_is_told_why():
    def make_kv_target(pages, below):
        raise RuntimeError("no device here")

    with pytest.raises(TargetFault, match=r"make_kv_target\(4, 2\) raised RuntimeError: no device here"):
        make_target(make_kv_target, 4, 2)
    with pytest.raises(KitError, match="gave 3, which lacks name, page_tokens"):
        make_target(lambda pages, below: 3, 4, 2)
    with pytest.raises(TargetFault, match="takes 0 positional arguments"):
        make_target(lambda: 3, 4, 2)


def test_a_target_that_contradicts_itself_is_refused():
    target = OneTier(4)
    target.capabilities = frozenset({"evicts"})
    with pytest.raises(KitError, match="evict"):
        checked(target)
    target = OneTier(4)
    target.page_bytes = 0
    with pytest.raises(KitError, match="0 bytes"):
        checked(target)


SERVER = """
import json, sys
print(json.dumps({"result": {"page_tokens": 2, "page_bytes": 8}}), flush=True)
for line in sys.stdin:
    method, arguments = json.loads(line)
    if method == "lookup":
        sys.exit(print("its last words", file=sys.stderr))
    if method == "audit":
        continue
    answer = {"error": "OSError: no"} if method == "evict" else {"result": None}
    print(json.dumps(answer), flush=True)
"""


@pytest.fixture
def process():
    started = kv_remote.KVProcess([sys.executable, "-c", SERVER], {})
    yield started
    started.stop()


def test_a_manager_in_another_process_may_raise_die_and_hang(process, monkeypatch):
    target = kv_remote.RemoteKV(process, "remote", frozenset({"evict"}), 4, 4)
    with pytest.raises(kv_remote.TargetError, match="OSError: no"):
        target.evict(1)
    with pytest.raises(TargetFault, match=r"(?s)died.*its last words"):
        target.lookup(prefix_of("a", 2))
    target = kv_remote.RemoteKV(process, "remote", frozenset(), 4, 4)
    monkeypatch.setattr(kv_remote, "ANSWER_SECONDS", 0.2)
    with pytest.raises(TargetFault, match=r"did not answer audit within 0\.2 s"):
        target.audit()
    monkeypatch.undo()
    following = kv_remote.RemoteKV(process, "remote", frozenset(), 4, 4)
    with pytest.raises(KitError, match="taken the place"):
        target.clear()
    following.clear()


def test_a_process_that_does_not_start_says_why():
    broken = kv_remote.KVProcess([sys.executable, "-c", "raise SystemExit('no such library')"], {})
    with pytest.raises(EnvironmentFault, match="no such library"):
        broken.call("new", 1, 1)


@pytest.mark.slow
@pytest.mark.skipif(find("sglang-cpu") is None, reason="gaugeblock env install sglang-cpu")
def test_sglangs_cache_is_held_to_the_same_machine():
    sglang = load_kv("gaugeblock.fixtures.targets.kv_sglang")
    tally = run_machine(lambda: sglang(5, 8), runs=20, steps=25)
    tally.require()
    assert tally.promoted > 0, "nothing was loaded back from its host pool"
