"""How large a prompt is, for rules that ask."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PROMPT_FIELDS = ("input_ids", "text", "prompt", "input", "query")
"""Where the paths that are not chats keep their prompt."""


def prompt_size(data: Mapping[str, Any]) -> tuple[int, bool]:
    """Return the size of a request's prompt and whether it came as token ids: then in tokens, else in bytes of text.

    Of a batch the sizes are added; what is neither text nor ids counts nothing.
    """
    if isinstance(data.get("messages"), list):
        return _text(data["messages"]), False
    value = next((data[name] for name in PROMPT_FIELDS if name in data), None)
    ids = _ids(value)
    return (ids, True) if ids else (_text(value), False)


def _ids(value: object) -> int:
    if not isinstance(value, list):
        return 0
    return sum(_ids(part) if isinstance(part, list) else type(part) is int for part in value)


def _text(value: object) -> int:
    """Return the bytes of text in a string, a list of such, or messages with their parts."""
    if isinstance(value, str):
        return len(value) if value.isascii() else len(value.encode(errors="replace"))
    if isinstance(value, list):
        return sum(map(_text, value))
    if isinstance(value, dict):
        return _text(value.get("content")) + _text(value.get("text"))
    return 0
