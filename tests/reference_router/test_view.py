from __future__ import annotations

import pytest

from gaugeblock.reference.router.policies.base import RequestView
from gaugeblock.reference.router.view import read

HEADERS = [b"x-smg-routing-key", b"x-session-id"]
UNREADABLE = [b"", b"{", b"[1]", b"\xff", b"null", b'{"text": ' + b"[" * 100_000, b"{" + b'"a":{' * 50_000]


def view(body: bytes, fields: dict[bytes, bytes] | None = None, limit: int = 1000) -> RequestView:
    return read("/generate", fields or {}, body, HEADERS, limit).view


@pytest.mark.parametrize("body", UNREADABLE, ids=range(len(UNREADABLE)))
def test_an_unreadable_body_gives_an_empty_view(body: bytes) -> None:
    assert view(body) == RequestView()


def test_a_number_of_ten_thousand_digits_is_no_reason_to_fail() -> None:
    assert view(b'{"n": ' + b"9" * 10_000 + b"}") == RequestView()


@pytest.mark.parametrize(
    ("body", "prompt", "unit"),
    [
        (b'{"text": "h\\u00e9"}', "hé".encode(), 1),
        (b' {"text": ["one", "two"]}', b"one", 1),
        (b'{"input_ids": [1, 2]}', b"\1\0\0\0\2\0\0\0", 4),
        (b'{"input_ids": [[1], [2]]}', b"\1\0\0\0", 4),
        (b'{"prompt": [7]}', b"\7\0\0\0", 4),
        (b'{"input_ids": [-1]}', b"", 4),
        (b'{"input_ids": [99999999999999999999]}', b"", 4),
        (b'{"input_ids": [1, "x"]}', b"", 4),
        (b'{"messages": [{"role": "user", "content": "hi"}]}', b"user\0hi\0", 1),
        (b'{"messages": [5, {"content": [{"text": "a"}]}]}', b'None\0[{"text": "a"}]\0', 1),
        (b'{"input": [{"role": "user", "content": "hi"}]}', b"user\0hi\0", 1),
        (b'{"text": null}', b"", 1),
        (b'{"text": []}', b"", 4),
        (b'{"text": "\\ud800"}', b"?", 1),
    ],
)
def test_prompts_are_read_as_bytes(body: bytes, prompt: bytes, unit: int) -> None:
    assert view(body) == RequestView(prompt=prompt, unit=unit)


def test_prompts_are_cut_to_the_limit_and_left_out_at_zero() -> None:
    assert view(b'{"text": "abcdef"}', limit=4).prompt == b"abcd"
    assert view(b'{"input_ids": [1, 2, 3]}', limit=8).prompt == b"\1\0\0\0\2\0\0\0"
    assert view(b'{"text": "abcdef"}', limit=0).prompt == b""


def test_session_keys_by_precedence() -> None:
    body = b'{"session_id": "body", "user": "user"}'
    assert view(body, {b"x-session-id": b"b", b"x-smg-routing-key": b"a"}).session == "a"
    assert view(body, {b"x-session-id": b"b"}).session == "b"
    assert view(body).session == "body"
    assert view(b'{"user": "user"}').session == "user"
    assert view(b'{"user": 5}').session is None


def test_long_names_are_kept_short_and_apart() -> None:
    one, other = (view(b'{"user": "%s%d"}' % (b"x" * 5000, i)).session for i in range(2))
    assert one is not None
    assert len(one) <= 64
    assert one != other


@pytest.mark.parametrize(
    ("rid", "expected"), [(b'"a"', ("a",)), (b'["a", "b", 5]', ("a", "b")), (b"null", ()), (b'""', ())]
)
def test_rids(rid: bytes, expected: tuple[str, ...]) -> None:
    assert read("/generate", {}, b'{"rid": %s, "stream": 1}' % rid, [], 0).rids == expected


@pytest.mark.parametrize(
    ("stream", "expected"), [(b"true", True), (b"false", False), (b"1", False), (b'"true"', False)]
)
def test_only_true_is_a_stream(stream: bytes, expected: bool) -> None:
    assert read("/v1/messages", {}, b'{"stream": %s}' % stream, [], 0).stream is expected
