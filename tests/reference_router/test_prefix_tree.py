from __future__ import annotations

import tracemalloc
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from gaugeblock.reference.router.policies.prefix_tree import PrefixTree, common_prefix

keys = st.binary(max_size=12).map(lambda raw: bytes(b % 3 for b in raw))


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
    tree = PrefixTree(3 * 1000)
    for name in b"abc":
        tree.insert(bytes([name]) * 200, "w")
        tree.insert(b"a" * 200, "w")
    tree.insert(b"d" * 200, "w")
    assert tree.match(b"a" * 200)
    assert not tree.match(b"b" * 200)


def test_unique_prompts_cost_no_more_memory_than_counted() -> None:
    rng = Random(1)
    tree = PrefixTree(2 << 20)
    tracemalloc.start()
    try:
        for _ in range(3000):
            tree.insert(rng.randbytes(4096), "http://127.0.0.1:30000")
        used = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert used <= 1.25 * tree.max_bytes, f"{used} bytes used, {tree.bytes} counted"


def test_short_unique_prompts_are_counted_with_their_overhead() -> None:
    rng = Random(1)
    tree = PrefixTree(1 << 20)
    tracemalloc.start()
    try:
        for _ in range(5000):
            tree.insert(rng.randbytes(12), "http://127.0.0.1:30000")
        used = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert used <= 1.25 * tree.max_bytes, f"{used} bytes used, {tree.bytes} counted"


def test_common_prefix_at_every_length() -> None:
    key = bytes(range(100))
    for same in range(60):
        edge = key[20 : 20 + same] + b"\xff" * 5
        assert common_prefix(edge, key, 20) == same
