"""Replays of traces, Belady's bound, and the trace format."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gaugeblock.fixtures.errors import KitError
from gaugeblock.fixtures.policy_hits import fingerprint, load_hits, traces
from gaugeblock.fixtures.traces import TraceRequest, accesses, generate_trace, load_trace, write_trace
from gaugeblock.reference.kv.pages import KVError
from gaugeblock.reference.kv.policies import POLICIES
from gaugeblock.reference.kv.policies.lru import LRU
from gaugeblock.reference.kv.replay import Accesses, belady, bound, replay

blocks = st.lists(st.integers(0, 6), max_size=14)


def test_a_replay_counts_hits_evictions_and_what_never_fits() -> None:
    trace = Accesses.of([("a", 2), ("b", 2), ("a", 2), ("big", 9), ("c", 2), ("a", 2), ("b", 2)])
    result = replay(trace, LRU(4), 4)
    assert (result.accesses, result.hits, result.evicted, result.bypassed) == (7, 2, 2, 1)
    assert result.hit_rate == 2 / 7
    assert trace.unique_bytes == 15
    assert trace.ceiling == pytest.approx(3 / 7)


def test_a_block_of_two_sizes_or_of_none_is_refused() -> None:
    with pytest.raises(ValueError, match="'a' has 2 bytes first and 3 later"):
        Accesses.of([("a", 2), ("a", 3)])
    with pytest.raises(ValueError, match="'a' has 0 bytes"):
        Accesses.of([("a", 0)])


def test_nothing_replayed_is_no_hit() -> None:
    trace = Accesses.of([])
    assert (replay(trace, LRU(1), 1).hit_rate, belady(trace, 1).hit_rate, bound(trace, 1), trace.ceiling) == (
        0,
        0,
        0,
        0,
    )


def test_a_policy_that_names_nobody_or_a_stranger_is_found_out() -> None:
    class Nobody(LRU):
        def victims(self, incoming: bytes | None = None) -> Iterator[int]:
            return iter(())

    class Stranger(LRU):
        def victims(self, incoming: bytes | None = None) -> Iterator[int]:
            return iter([2])

    trace = Accesses.of((name, 1) for name in "abc")
    with pytest.raises(KVError, match="1 bytes are missing and the policy's victim is None"):
        replay(trace, Nobody(2), 2)
    with pytest.raises(KVError, match="victim is 2, which is not held"):
        replay(trace, Stranger(2), 2)


def best_hits(order: tuple[int, ...], capacity: int) -> int:
    """Try every choice of every eviction."""

    @cache
    def from_here(at: int, held: frozenset[int]) -> int:
        if at == len(order):
            return 0
        page = order[at]
        if page in held:
            return 1 + from_here(at + 1, held)
        if len(held) < capacity:
            return from_here(at + 1, held | {page})
        return max(from_here(at + 1, held - {victim} | {page}) for victim in held)

    return from_here(0, frozenset())


@settings(max_examples=60)
@given(blocks, st.integers(1, 4))
def test_belady_is_the_best_of_all_choices_at_one_size(names: list[int], capacity: int) -> None:
    trace = Accesses.of((name, 1) for name in names)
    best = belady(trace, capacity)
    assert best.hits == best_hits(tuple(names), capacity)
    assert best.hits <= round(bound(trace, capacity) * len(names))
    for make in POLICIES.values():
        assert replay(trace, make(capacity), capacity).hits <= best.hits


@settings(max_examples=60)
@given(blocks, st.lists(st.integers(1, 5), min_size=7, max_size=7), st.integers(1, 12))
def test_no_policy_exceeds_the_bound_at_any_sizes(names: list[int], sizes: list[int], capacity: int) -> None:
    trace = Accesses.of((name, sizes[name]) for name in names)
    most = bound(trace, capacity) + 1e-9
    assert belady(trace, capacity).hit_rate <= most
    for make in POLICIES.values():
        assert replay(trace, make(capacity), capacity).hit_rate <= most


def test_room_for_everything_gives_the_ceiling() -> None:
    trace = accesses(generate_trace(1, 100), block_bytes=4096)
    for name, make in POLICIES.items():
        result = replay(trace, make(trace.unique_bytes), trace.unique_bytes)
        assert (result.evicted, result.hit_rate) == (0, pytest.approx(trace.ceiling)), name


def test_the_generated_trace_is_of_the_format_and_always_the_same(tmp_path: Path) -> None:
    made = generate_trace(7, 300)
    write_trace(tmp_path / "trace.jsonl", made)
    assert load_trace(tmp_path / "trace.jsonl") == made
    assert generate_trace(7, 300) == made
    assert generate_trace(8, 300) != made
    assert fingerprint(traces()["equal"])[:16] == "4d55ee543bd742f7"  # another machine's figures belong to this trace
    assert load_hits()["equal"]["lru"]


def test_the_generated_trace_has_sessions_and_popular_system_prompts() -> None:
    made = generate_trace(3, 600)
    trace = accesses(made)
    uses = sorted((trace.order.count(block) for block in set(trace.order)), reverse=True)
    assert uses[0] > 100  # the most popular system prompt's first block
    assert uses[len(uses) // 2] <= 3  # most blocks belong to one session
    assert 0.4 < trace.ceiling < 0.8
    assert [request.timestamp for request in made] == sorted(request.timestamp for request in made)


GOOD = {"timestamp": 5, "input_length": 600, "output_length": 1, "hash_ids": [0, 1]}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: not JSON"),
        ("[1]", "line 2: a request is an object with timestamp, input_length"),
        (
            json.dumps({"timestamp": 5, "hash_ids": []}),
            "line 2: no input_length, output_length; a request has timestamp",
        ),
        (json.dumps(GOOD | {"timestamp": "5"}), "line 2: timestamp must be a whole number from 0 on, not '5'"),
        (json.dumps(GOOD | {"input_length": 0}), "line 2: input_length must be a whole number from 1 on, not 0"),
        (
            json.dumps(GOOD | {"output_length": True}),
            "line 2: output_length must be a whole number from 0 on, not True",
        ),
        (
            json.dumps(GOOD | {"hash_ids": [0, -1]}),
            r"line 2: hash_ids must be a list of whole numbers .* not \[0, -1\]",
        ),
        (json.dumps(GOOD | {"hash_ids": 3}), "line 2: hash_ids must be a list of whole numbers from 0 on, not 3"),
        (json.dumps(GOOD | {"hash_ids": [0]}), "line 2: hash_ids has 1 blocks and input_length 600 makes 2 of 512"),
        (json.dumps(GOOD | {"hash_ids": [4, 4]}), "line 2: hash_ids names a block twice"),
        (json.dumps(GOOD | {"timestamp": 4}), "line 2: timestamp 4 is before that of the request above, 5"),
    ],
)
def test_a_bad_line_is_named_with_its_field(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text(json.dumps(GOOD) + "\n" + line + "\n")
    with pytest.raises(KitError, match=message):
        load_trace(path)


def test_a_file_that_is_no_trace_is_named(tmp_path: Path) -> None:
    with pytest.raises(KitError, match=r"cannot read the trace .*nowhere"):
        load_trace(tmp_path / "nowhere.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n\n")
    with pytest.raises(KitError, match="holds no request"):
        load_trace(tmp_path / "empty.jsonl")
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(KitError, match="cannot read the trace"):
        load_trace(tmp_path / "binary.jsonl")


def test_accesses_are_numbered_in_order_of_first_use() -> None:
    made: list[Any] = [TraceRequest(0, 600, 1, (9, 4)), TraceRequest(1, 600, 1, (9, 7))]
    trace = accesses(made, block_bytes=3)
    assert trace.order == array("i", [0, 1, 0, 2])
    assert trace.sizes == array("q", [3, 3, 3])
