from __future__ import annotations

import tracemalloc
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gaugeblock.reference.router.policies.blocks import BLOCK, SCOPE, key_of, matched_bytes
from gaugeblock.reference.router.policies.prefix_tree import PrefixTree, common_prefix

keys = st.lists(st.integers(0, 2), max_size=12).map(lambda units: b"".join(bytes([unit]) * 4 for unit in units))


def naive(seen: list[tuple[bytes, str]], key: bytes) -> dict[str, int]:
    found: dict[str, int] = {}
    for other, worker in seen:
        same = next((i for i, (a, b) in enumerate(zip(other, key, strict=False)) if a != b), min(len(other), len(key)))
        if same:
            found[worker] = max(found.get(worker, 0), same)
    return found


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(keys, st.sampled_from("abc")), max_size=12), keys)
def test_matches_agree_with_a_scan_over_all_prompts(seen: list[tuple[bytes, str]], key: bytes) -> None:
    tree = PrefixTree(1 << 30)
    for other, worker in seen:
        tree.insert(other, worker)
    assert tree.match(key) == naive(seen, key)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.one_of(keys, st.none()), st.sampled_from("abc")), max_size=20), keys)
def test_forgetting_a_worker_is_as_if_it_had_never_been_there(
    steps: list[tuple[bytes | None, str]], key: bytes
) -> None:
    tree, seen = PrefixTree(1 << 30), list[tuple[bytes, str]]()
    for known, worker in steps:
        if known is None:
            tree.forget(worker)
            seen = [(other, who) for other, who in seen if who != worker]
        else:
            tree.insert(known, worker)
            seen.append((known, worker))
    assert tree.match(key) == naive(seen, key)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(keys, st.sampled_from("abc")), max_size=30), st.integers(0, 6000))
def test_bytes_stay_within_the_bound_and_add_up(seen: list[tuple[bytes, str]], bound: int) -> None:
    tree = PrefixTree(bound)
    for other, worker in seen:
        tree.insert(other, worker)
        assert tree.bytes <= bound
    for worker in "abc":
        tree.forget(worker)
    assert (tree.bytes, len(tree)) == (0, 0)


def test_the_least_recently_used_prompt_goes_first() -> None:
    tree = PrefixTree(3 * 400)
    for name in b"abc":
        tree.insert(bytes([name]) * 200, "w")
        tree.insert(b"a" * 200, "w")
    tree.insert(b"d" * 200, "w")
    assert tree.match(b"a" * 200)
    assert not tree.match(b"b" * 200)


def test_a_parent_in_use_outlives_its_older_children() -> None:
    tree = PrefixTree(3 * 1000)
    tree.insert(b"h" * 400 + b"a" * 400, "w")
    for name in b"bcdefgh":
        tree.insert(b"h" * 400, "w")
        tree.insert(bytes([name]) * 400, "w")
    assert tree.match(b"h" * 400 + b"a" * 400) == {"w": 400}, "the child went, the parent stayed"


def test_a_worker_that_is_forgotten_gives_its_place_to_another() -> None:
    tree = PrefixTree(1 << 20)
    for name in "abc":
        tree.insert(b"k" * 40, name)
    tree.forget("b")
    assert tree.match(b"k" * 40) == {"a": 40, "c": 40}
    tree.insert(b"other" * 8, "d")
    assert tree.match(b"k" * 40) == {"a": 40, "c": 40}
    assert tree.match(b"other" * 8) == {"d": 40}
    tree.forget("b")
    tree.insert(b"k" * 40, "b")
    assert tree.match(b"k" * 40) == {"a": 40, "b": 40, "c": 40}


@pytest.mark.parametrize(("size", "head"), [(4096, 0), (12, 0), (1500, 1024)])
def test_prompts_cost_no_more_memory_than_counted(size: int, head: int) -> None:
    rng = Random(1)
    tree = PrefixTree(1 << 20)
    heads = [rng.randbytes(head) for _ in range(40)]
    tracemalloc.start()
    try:
        for number in range(6000):
            tree.insert(key_of("m", 1, heads[number % 40] + rng.randbytes(size - head)), "http://127.0.0.1:30000")
        used = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert used <= 1.25 * tree.max_bytes, f"{used} bytes used, {tree.bytes} counted"


def test_common_prefix_at_every_length() -> None:
    key = bytes(range(100))
    for same in range(60):
        edge = key[20 : 20 + same] + b"\xff" * 5
        assert common_prefix(edge, key, 20) == same // 4 * 4


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=3 * BLOCK), st.binary(max_size=3 * BLOCK), st.integers(0, 3 * BLOCK))
def test_keys_share_as_much_as_their_prompts_share_whole_blocks(one: bytes, tail: bytes, cut: int) -> None:
    other = one[:cut] + tail
    a, b = key_of("m", 1, one), key_of("m", 1, other)
    same = next((i for i, (x, y) in enumerate(zip(one, other, strict=False)) if x != y), min(len(one), len(other)))
    wanted = len(one) if one == other else same // BLOCK * BLOCK
    assert matched_bytes(common_prefix(a, b, 0), one) == wanted


def test_keys_are_a_thirty_second_and_scoped() -> None:
    assert len(key_of("m", 1, bytes(4096))) == SCOPE + 128
    keys = {key_of(model, unit, b"text")[:SCOPE] for model in ("a", "b", None) for unit in (1, 4)}
    assert len(keys) == 6
    assert matched_bytes(4, b"text") == 0, "half a scope is no match"
