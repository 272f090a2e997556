"""The three fields of the bootstrap contract, and the bytes around them."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest

from gaugeblock.reference.router.bootstrap import ROOMS, Sequences, bootstrap_fields, draw_rooms, read_sequences, splice

FIELDS = {"bootstrap_host": "h", "bootstrap_port": None, "bootstrap_room": 7}
ADDED = b'"bootstrap_host":"h","bootstrap_port":null,"bootstrap_room":7'


@pytest.mark.parametrize(
    ("body", "whole"),
    [
        (b"{}", b"{" + ADDED + b"}"),
        (b"{ \n}", b"{ \n" + ADDED + b"}"),
        (b"{" + b" " * 100 + b"}", b"{" + b" " * 100 + ADDED + b"}"),
        (b'{"a":1}', b'{"a":1,' + ADDED + b"}"),
        (b' { "a" : 1 } \r\n', b' { "a" : 1 ,' + ADDED + b"} \r\n"),
        (
            b'{"n":123456789012345678901234567890,"x":1.0}',
            b'{"n":123456789012345678901234567890,"x":1.0,' + ADDED + b"}",
        ),
        (b'{"a":"}"}', b'{"a":"}",' + ADDED + b"}"),
    ],
)
def test_every_other_byte_stays(body: bytes, whole: bytes) -> None:
    assert splice(body, FIELDS) == whole
    assert json.loads(whole)["bootstrap_room"] == 7


@pytest.mark.parametrize("body", [b"", b"  ", b"{", b"}", b"[]", b'"text"', b"null", b"\xff"])
def test_what_is_no_object_is_refused(body: bytes) -> None:
    assert splice(body, FIELDS) is None


def test_the_routers_fields_win_over_the_clients() -> None:
    spliced = splice(b'{"bootstrap_room": 1, "bootstrap_host": "evil"}', FIELDS)
    assert spliced is not None
    data = json.loads(spliced)
    assert (data["bootstrap_room"], data["bootstrap_host"]) == (7, "h")


@pytest.mark.parametrize(
    ("data", "number", "batch"),
    [
        ({"text": "one"}, 1, False),
        ({"text": ["one"]}, 1, True),
        ({"text": ["one", "two"], "sampling_params": {"n": 3}}, 6, True),
        ({"text": "one", "sampling_params": {"n": 2}}, 2, True),
        ({"text": "one", "sampling_params": [{"n": 2}]}, 1, False),
        ({"input_ids": [1, 2, 3]}, 1, False),
        ({"input_ids": [[1], [2, 3]]}, 2, True),
        ({"input_embeds": [[0.1], [0.2]]}, 1, False),
        ({"input_embeds": [[[0.1]], [[0.2]]]}, 2, True),
        ({"prompt": ["a", "b", "c"]}, 3, True),
        ({"prompt": [5, 6]}, 1, False),
        ({"messages": [], "n": 4}, 4, True),
        ({"messages": [], "n": 1}, 1, False),
        ({"messages": [], "n": True}, 1, False),
        ({"messages": [], "n": 10**9}, 1, False),
        ({}, 1, False),
    ],
)
def test_a_room_for_each_sequence(data: dict[str, Any], number: int, batch: bool) -> None:
    assert read_sequences(data)[:2] == (number, batch)


def test_logprobs_and_a_named_rank_are_read() -> None:
    assert read_sequences({"return_logprob": True, "routed_dp_rank": 3}) == Sequences(1, False, True, 3)
    assert read_sequences({"return_logprob": [True], "data_parallel_rank": 1}) == Sequences(1, False, False, 1)


def test_a_batch_gets_arrays_of_one_length() -> None:
    assert bootstrap_fields("h", 1, [5], False) == {"bootstrap_host": "h", "bootstrap_port": 1, "bootstrap_room": 5}
    fields = bootstrap_fields("h", None, [5, 6], True)
    assert fields == {"bootstrap_host": ["h", "h"], "bootstrap_port": [None, None], "bootstrap_room": [5, 6]}


@pytest.mark.parametrize("dp_size", [1, 2, 7, 64])
def test_rooms_are_distinct_in_range_and_lead_to_their_rank(dp_size: int) -> None:
    rooms = draw_rooms(1000, Random(1), dp_size - 1, dp_size)
    assert len(set(rooms)) == 1000
    assert all(0 <= room < ROOMS and room % dp_size == dp_size - 1 for room in rooms)
