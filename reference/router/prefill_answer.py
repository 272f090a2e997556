"""What a prefill worker's answer is good for: whether it did its part, and the prompt's log-probabilities.

Its text is thrown away. SGLang returns the prompt's log-probabilities from the prefill worker alone, so for a native
request with ``return_logprob`` they are put before those of the decode worker's ``meta_info.input_token_logprobs``, as
its own router does; every other answer keeps decode's bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from gaugeblock.reference.router.breaker import Outcome
from gaugeblock.reference.router.calls import Answer
from gaugeblock.reference.router.relay import judge

_FIELD = "input_token_logprobs"
Edit = Callable[[bytes], bytes]


def judge_prefill(answer: Answer) -> tuple[bool, Outcome]:
    """Return whether decode has a KV to go on with, and how the worker did.

    An engine may say only inside a 200 that it has aborted the request or failed on it.
    """
    if answer.status >= 300:
        return False, judge(answer.status)
    for data in _objects(answer.body) if b'"abort"' in answer.body or b'"error"' in answer.body else ():
        if data.get("error"):
            return False, Outcome.FAULT
        if _aborted(data):
            return False, Outcome.NEUTRAL
    return True, Outcome.SUCCESS


def merging(answer: Answer) -> Edit | None:
    """Return what puts prefill's log-probabilities into a JSON body or whole SSE events; None if it has none."""
    known = [_logprobs(data) for data in _objects(answer.body)]
    first = next((values for values in reversed(known) if values is not None), None)
    if not first:
        return None

    def edit(body: bytes) -> bytes:
        if not body.startswith(b"data:"):
            return _merged(body, first)
        events = body.split(b"\n\n")
        return b"\n\n".join(b"data: " + _merged(e[5:].strip(), first) if _FIELD.encode() in e else e for e in events)

    return edit


def _merged(body: bytes, first: list[Any]) -> bytes:
    data = _json(body)
    own = _logprobs(data) if isinstance(data, dict) else None
    if own is None:
        return body
    data["meta_info"][_FIELD] = [*first, *own]
    return json.dumps(data, separators=(",", ":"), ensure_ascii=False).encode(errors="surrogatepass")


def _logprobs(data: dict[str, Any]) -> list[Any] | None:
    meta = data.get("meta_info")
    values = meta.get(_FIELD) if isinstance(meta, dict) else None
    return values if isinstance(values, list) else None


def _aborted(data: dict[str, Any]) -> bool:
    meta = data.get("meta_info")
    finish = meta.get("finish_reason") if isinstance(meta, dict) else None
    if isinstance(finish, dict) and finish.get("type") == "abort":
        return True
    choices = data.get("choices")
    return isinstance(choices, list) and any(isinstance(c, dict) and c.get("finish_reason") == "abort" for c in choices)


def _objects(body: bytes) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects of a body: itself, its elements, or the data of its SSE events."""
    pieces = [body]
    if body.startswith((b"data:", b":", b"event:")):
        pieces = [line[5:] for line in body.splitlines() if line.startswith(b"data:")]
    for piece in pieces:
        data = _json(piece)
        yield from (item for item in (data if isinstance(data, list) else [data]) if isinstance(item, dict))


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None
