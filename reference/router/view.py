"""The routing view: the little that the router reads of a request. The body itself is never written again."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Sequence
from typing import Any, NamedTuple

from gaugeblock.reference.router.bootstrap import Sequences, read_sequences
from gaugeblock.reference.router.policies.base import RequestView
from gaugeblock.reference.router.sizes import PROMPT_FIELDS, prompt_size

FAMILIES = {
    "/generate": "native",
    "/v1/chat/completions": "openai",
    "/v1/completions": "openai",
    "/v1/responses": "responses",
    "/v1/messages": "messages",
}
_LONG_NAME = 256  # characters


class Reading(NamedTuple):
    """What was read of one request: the policies' view, and what the proxy needs for retries and endings.

    ``size`` is that of the prompt, in tokens where it came as ``ids``, else in bytes; 0 if nobody asked for it.
    """

    view: RequestView
    family: str
    stream: bool = False
    rids: tuple[str, ...] = ()
    sequences: Sequences = Sequences()
    size: int = 0
    ids: bool = False


def read(
    path: str,
    fields: dict[bytes, bytes],
    body: bytes,
    session_headers: Sequence[bytes],
    max_prompt: int,
    pairs: bool = False,
    measure: bool = False,
) -> Reading:
    """Read what routing needs; a body that cannot be read gives an empty view and goes to a worker as it is.

    ``max_prompt`` limits the prompt of the view in bytes; 0 leaves it out. ``pairs``: there are prefill and decode
    workers, which must be told how many sequences a request asks for. ``measure`` asks for the size of the prompt.
    """
    family = FAMILIES.get(path, "openai")
    data = json_object(body) or {}
    session = next((fields[name].decode("latin-1") for name in session_headers if fields.get(name)), None)
    if session is None:
        session = _text(data.get("session_id")) or _text(data.get("user"))
    session = _name(session)
    prompt, unit = _prompt(data, max_prompt) if max_prompt and data else (b"", 1)
    view = RequestView(_name(data.get("model")), session, prompt, unit)
    sequences = read_sequences(data) if pairs else Sequences()
    size, ids = prompt_size(data) if measure else (0, False)
    return Reading(view, family, data.get("stream") is True, _rids(data.get("rid")), sequences, size, ids)


def json_object(body: bytes) -> dict[str, Any] | None:
    """Return a body that is a JSON object, None for any other."""
    if body[:1].isspace():
        body = body.lstrip()
    if not body.startswith(b"{"):
        return None
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _name(value: object) -> str | None:
    """A name that comes from outside and goes into tables: a long one is kept as its digest."""
    text = _text(value)
    if text is None or len(text) <= _LONG_NAME:
        return text
    return hashlib.blake2b(text.encode(errors="replace"), digest_size=16).hexdigest()


def _rids(value: object) -> tuple[str, ...]:
    if isinstance(value, str) and value:
        return (value,)
    return tuple(rid for rid in value if isinstance(rid, str)) if isinstance(value, list) else ()


def _prompt(data: dict[str, Any], limit: int) -> tuple[bytes, int]:
    """Return the prompt as bytes and the bytes of one unit: 4 for token ids, 1 for text."""
    if isinstance(data.get("messages"), list):
        return _messages(data["messages"], limit), 1
    value = next((data[name] for name in PROMPT_FIELDS if name in data), None)
    first = value[0] if isinstance(value, list) and value else value
    if isinstance(first, dict):
        return _messages(value, limit), 1
    if isinstance(first, int | list):
        return _ids(first if isinstance(first, list) else value, limit), 4
    return _utf8(first, limit), 1


def _ids(value: Any, limit: int) -> bytes:
    """Token ids as 4 bytes each; nothing if they are not ids."""
    try:
        return array("I", value[: limit // 4]).tobytes()
    except (TypeError, OverflowError):
        return b""


def _messages(messages: Any, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    for message in messages:
        if not isinstance(message, dict):
            continue
        content = message.get("content")
        text = content if isinstance(content, str) else json.dumps(content)
        part = f"{message.get('role')}\x00{text}\x00".encode(errors="replace")
        parts.append(part)
        size += len(part)
        if size >= limit:
            break
    return b"".join(parts)[:limit]


def _utf8(value: object, limit: int) -> bytes:
    return value[:limit].encode(errors="replace")[:limit] if isinstance(value, str) else b""
