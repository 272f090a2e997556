"""Tiers over one table against a model that does everything the slow way, under every eviction policy."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from gaugeblock.reference.kv.pages import KVError
from gaugeblock.reference.kv.policies import POLICIES
from gaugeblock.reference.kv.table import PageTable
from gaugeblock.reference.kv.tier import Lookup, NewPage, StorePlan, Tier

NAMES = [first + second + third for first in "ab" for second in "ab" for third in "ab"]
NAMES = sorted({name[:end] for name in NAMES for end in (1, 2, 3)})
QUOTAS = {"ann": 4, "bob": 5}
OWNERS = {"a": "ann", "b": "bob"}  # by the last letter, so parents and children differ
TIERS = 2

chains = st.sampled_from(NAMES).map(lambda name: [name[: end + 1] for end in range(len(name))])
names = chains | st.lists(st.sampled_from(NAMES), min_size=1, max_size=4)
tiers = st.integers(0, TIERS - 1)


def page(name: str) -> NewPage:
    """Return a page of one, two or three bytes."""
    return NewPage(name.encode(), name[:-1].encode(), 1 + sum(map(ord, name)) % 3, OWNERS[name[-1]])


@dataclass
class Held:
    """What the model knows of a page in one tier."""

    ready: bool = False
    pins: int = 0


class TierMachine(RuleBasedStateMachine):
    """Two tiers; whoever evicts is judged by what it may do, not by what a certain policy would."""

    policy = "lru"

    @initialize(capacities=st.tuples(*[st.integers(2, 9)] * TIERS), quotas=st.booleans())
    def start(self, capacities: tuple[int, ...], quotas: bool) -> None:
        """Make the tiers."""
        self.quotas = QUOTAS if quotas else {}
        self.table = PageTable()
        self.tiers = [
            Tier(f"tier{i}", capacity, POLICIES[self.policy](capacity), self.table, 1 << i, self.quotas)
            for i, capacity in enumerate(capacities)
        ]
        self.model: list[dict[str, Held]] = [{} for _ in capacities]

    # --- stores

    @rule(at=tiers, wanted=names)
    def store(self, at: int, wanted: list[str]) -> None:
        """Take room, and let the pages arrive at once."""
        before = set(self.model[at])
        self.prepare(at, wanted, set())
        fresh = [name for name in self.model[at] if name not in before]
        self.tiers[at].complete_store([name.encode() for name in fresh])
        self.model[at].update({name: Held(ready=True) for name in fresh})

    @rule(at=tiers, wanted=names, keep=st.sets(st.sampled_from(NAMES), max_size=2))
    def prepare(self, at: int, wanted: list[str], keep: set[str]) -> None:
        """Take room, or be refused with nothing changed."""
        tier, model = self.tiers[at], self.model[at]
        fresh = [name for name in dict.fromkeys(wanted) if name not in model]
        order = list(tier.policy.victims())
        room = tier.room_for([page(name) for name in fresh], {k.encode() for k in keep})
        fits = self.fits(at, fresh, {*wanted, *keep})
        assert room == max(n for n in range(len(fresh) + 1) if self.fits(at, fresh[:n], {*fresh[:n], *keep}))
        plan = tier.prepare_store([page(name) for name in wanted], [k.encode() for k in keep])
        assert (plan is not None) == fits, f"{fresh} {'fit' if fits else 'do not fit'} and the plan is {plan}"
        if plan is None:
            assert list(tier.policy.victims()) == order, "a refused store changed the order"
            return
        assert [p.key.decode() for p in plan.fresh] == fresh
        self.evict(at, plan, {*wanted, *keep}, fresh)
        model.update({name: Held() for name in fresh})

    @rule(at=tiers, stored=st.booleans(), data=st.data())
    def complete(self, at: int, stored: bool, data: st.DataObject) -> None:
        """Let pages arrive, or not."""
        pending = [name for name, held in self.model[at].items() if not held.ready]
        if not pending:
            return
        done = data.draw(st.lists(st.sampled_from(pending), unique=True))
        self.tiers[at].complete_store([name.encode() for name in done], stored=stored)
        for name in done:
            self.model[at][name].ready = True
            if not stored:
                del self.model[at][name]

    @rule(at=tiers, name=st.sampled_from(NAMES))
    def complete_what_is_not_on_its_way(self, at: int, name: str) -> None:
        """Nobody may complete a store twice, or without asking."""
        held = self.model[at].get(name)
        if held is None or held.ready:
            with pytest.raises(KVError, match="is not on its way"):
                self.tiers[at].complete_store([name.encode()])

    # --- loads

    @rule(at=tiers, wanted=names)
    def load(self, at: int, wanted: list[str]) -> None:
        """Pin pages, all or none."""
        model = self.model[at]
        hit = all(name in model and model[name].ready for name in wanted)
        assert self.tiers[at].prepare_load([name.encode() for name in wanted]) is hit
        for name in wanted if hit else ():
            model[name].pins += 1

    @rule(at=tiers, name=st.sampled_from(NAMES))
    def unload(self, at: int, name: str) -> None:
        """Unpin a page; once too often is an error."""
        held = self.model[at].get(name)
        if held is not None and held.pins:
            self.tiers[at].complete_load([name.encode()])
            held.pins -= 1
        else:
            with pytest.raises(KVError, match="is not"):
                self.tiers[at].complete_load([name.encode()])

    # --- the rest

    @rule(at=tiers, wanted=names)
    def touch(self, at: int, wanted: list[str]) -> None:
        """Note uses, also of pages that are not here."""
        self.tiers[at].touch([name.encode() for name in wanted])

    @rule(at=tiers, name=st.sampled_from(NAMES))
    def discard(self, at: int, name: str) -> None:
        """Forget a page, unless somebody needs it."""
        held = self.model[at].get(name)
        if held is not None and held.ready and not held.pins:
            self.tiers[at].discard(name.encode())
            del self.model[at][name]
        else:
            with pytest.raises(KVError, match=r"is not here|is being read"):
                self.tiers[at].discard(name.encode())

    @precondition(lambda self: any(held.pins for model in self.model for held in model.values()))
    @rule(at=tiers)
    def clear(self, at: int) -> None:
        """Forget all that nobody needs."""
        gone = {name for name, held in self.model[at].items() if held.ready and not held.pins}
        assert {key.decode() for key in self.tiers[at].clear()} == gone
        for name in gone:
            del self.model[at][name]

    @invariant()
    def counts(self) -> None:
        """Compare everything that can be asked."""
        held = {name for model in self.model for name in model}
        for tier, model in zip(self.tiers, self.model, strict=True):
            tier.recount()
            for name in NAMES:
                here = model.get(name)
                says = Lookup.MISS if here is None else Lookup.HIT if here.ready else Lookup.PENDING
                assert tier.lookup(name.encode()) is says
                assert tier.owner(name.encode()) == (OWNERS[name[-1]] * (here is not None) if self.quotas else "")
            assert tier.used == sum(page(name).size for name in model) <= tier.capacity
            assert tier.pinned() == sum(held.pins for held in model.values())
            for owner, quota in self.quotas.items():
                used = sum(page(name).size for name in model if OWNERS[name[-1]] == owner)
                assert used == tier.used_by.get(owner, 0) <= quota
            order = list(tier.policy.victims())
            assert list(tier.policy.victims()) == order, "looking at the victims changed them"
            assert sorted(self.table.keys[n].decode() for n in order) == sorted(model)
        assert {key.decode() for key in self.table.numbers} == held
        for name in ["", *NAMES]:
            assert self.table.children_of(name.encode()) == sum(child[:-1] == name for child in held)

    # --- the slow way

    def may_go(self, at: int, name: str, gone: set[str]) -> bool:
        """Tell whether a page is another tier's too, or has no child anywhere once ``gone`` have left this tier."""
        held = self.model[at][name]
        if not held.ready or held.pins:
            return False
        others = [model for i, model in enumerate(self.model) if i != at]
        if any(name in model and model[name].ready for model in others):
            return True
        left = (set(self.model[at]) - gone).union(*others)
        return not any(child[:-1] == name for child in left)

    def most(self, at: int, keep: set[str], owner: str | None) -> int:
        """Return how many bytes can go in all."""
        gone: set[str] = set()
        while True:
            more = {
                name
                for name in self.model[at]
                if name not in gone | keep and owner in (None, OWNERS[name[-1]]) and self.may_go(at, name, gone)
            }
            if not more:
                return sum(page(name).size for name in gone)
            gone |= more

    def fits(self, at: int, fresh: list[str], keep: set[str]) -> bool:
        """Tell whether there can be room for pages."""
        tier, model = self.tiers[at], self.model[at]
        for owner, quota in self.quotas.items():
            wanted = sum(page(name).size for name in fresh if OWNERS[name[-1]] == owner)
            used = sum(page(name).size for name in model if OWNERS[name[-1]] == owner)
            if wanted and used + wanted - self.most(at, keep, owner) > quota:
                return False
        needed = sum(page(name).size for name in [*fresh, *model]) - tier.capacity
        return needed <= self.most(at, keep, None)

    def evict(self, at: int, plan: StorePlan, keep: set[str], fresh: list[str]) -> None:
        """Judge victims: each might go after those before it, and without the last one there was no room."""
        gone: set[str] = set()
        for key in plan.evicted:
            name = key.decode()
            assert name not in keep, f"{name} is of the same call"
            assert self.may_go(at, name, gone), f"{name} is needed, or leaves an orphan"
            gone.add(name)
        model, tier = self.model[at], self.tiers[at]
        over = sum(page(name).size for name in [*fresh, *model]) > tier.capacity
        for owner, quota in self.quotas.items():
            asked = any(OWNERS[name[-1]] == owner for name in fresh)
            all_of = [page(name).size for name in [*fresh, *model] if OWNERS[name[-1]] == owner]
            over = over or (asked and sum(all_of) > quota)
        assert over or not gone, f"{gone} went although there was room"
        for name in gone:
            del model[name]


@pytest.mark.parametrize("policy", POLICIES)
def test_tiers_agree_with_a_naive_model(policy: str) -> None:
    """Two-phase stores, pins, quotas, refusals and children, recounted after every step."""
    machine = type(f"{policy}Machine", (TierMachine,), {"policy": policy})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=60,
            stateful_step_count=30,
            deadline=None,
            derandomize=True,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
