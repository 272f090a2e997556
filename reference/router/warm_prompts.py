"""Requests that warm a worker's prefix cache: whole prompts, one token of answer."""

from __future__ import annotations

import json
from array import array
from pathlib import Path
from typing import Any, NamedTuple

from gaugeblock.reference.router.hot import HotPrefix
from gaugeblock.reference.router.policies.base import RequestView
from gaugeblock.reference.router.view import read

SHAPES = {
    "messages": "/v1/chat/completions",
    "prompt": "/v1/completions",
    "text": "/generate",
    "input_ids": "/generate",
}
"""The field by which a body tells its path."""


class WarmPrompt(NamedTuple):
    """One warm-up request, and what a policy would see of it."""

    path: str
    body: bytes
    view: RequestView


def warm_prompt(given: object, max_prompt: int, session_headers: tuple[bytes, ...] = ()) -> WarmPrompt:
    """Return the warm-up request of a body in any of the shapes, or of a bare string, which is text for ``/generate``.

    Raises:
        ValueError: it is neither.
    """
    body = {"text": given} if isinstance(given, str) else given
    shape = next((name for name in SHAPES if isinstance(body, dict) and name in body), None)
    if not isinstance(body, dict) or shape is None:
        said = json.dumps(given)[:80]
        raise ValueError(f"a prompt must be a string, or an object with one of {', '.join(SHAPES)}; got {said}")
    path = SHAPES[shape]
    short = {**body, "stream": False}
    if path == "/generate":
        params = body.get("sampling_params")
        short["sampling_params"] = {**(params if isinstance(params, dict) else {}), "max_new_tokens": 1}
    else:
        short["max_tokens"] = 1
        short.pop("max_completion_tokens", None)
    data = json.dumps(short).encode()
    return WarmPrompt(path, data, read(path, {}, data, session_headers, max_prompt).view)


def rebuilt(hot: HotPrefix, max_prompt: int) -> WarmPrompt | None:
    """Return a request with this prefix; None if there is no telling what it looked like."""
    if hot.path not in SHAPES.values():
        return None
    body: dict[str, Any] = {} if hot.model is None else {"model": hot.model}
    if hot.unit > 1:
        ids = array("I", hot.prompt[: len(hot.prompt) // 4 * 4]).tolist()
        body["input_ids" if hot.path == "/generate" else "prompt"] = ids
    elif hot.path == "/v1/chat/completions":
        body["messages"] = _messages(hot.prompt)
        if not body["messages"]:
            return None
    else:
        body["text" if hot.path == "/generate" else "prompt"] = _text(hot.prompt)
    return warm_prompt(body, max_prompt)


def load_prompts(path: str, max_prompt: int) -> list[WarmPrompt]:
    """Read a file with one prompt a line, as JSON.

    Raises:
        ValueError: naming the file, and the line that is none.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"warm_file {path!r} cannot be read: {error}") from None
    prompts = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                prompts.append(warm_prompt(json.loads(line), max_prompt))
            except (ValueError, RecursionError) as error:
                raise ValueError(f"warm_file {path!r}, line {number}: {error}") from None
    return prompts


def _messages(prompt: bytes) -> list[dict[str, str]]:
    """Take the view of a chat apart: role and content of each message, ended by zero bytes; the last may be cut."""
    parts = [_text(part) for part in prompt.split(b"\x00")]
    return [
        {"role": role, "content": content} for role, content in zip(parts[::2], parts[1::2], strict=False) if content
    ]


def _text(data: bytes) -> str:
    return data.decode(errors="ignore")  # the cut may go through a character
