"""SGLang's bootstrap contract: the fields by which a prefill and a decode worker find each other, put into a body.

Both workers get the request's own bytes and, at the end of its JSON object, ``bootstrap_host``, ``bootstrap_port`` and
``bootstrap_room``: a random number for each sequence, one value if there is one and arrays of equal length otherwise.
Being the last of their names they win over what a client may have written. Rules and ranges are those of
``sgl-model-gateway/src/routers/http/pd_router.rs`` and ``python/sglang/srt/managers/io_struct.py``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from random import Random
from typing import Any, NamedTuple

ROOMS = 1 << 63
"""Rooms are whole numbers below this."""
_SPACE = b" \t\r\n"  # of JSON
_MOST = 4096  # sequences whose rooms are written into the body


class Sequences(NamedTuple):
    """What a request asks of the pair: how many sequences, the prompt's log-probabilities, one rank of the prefill."""

    number: int = 1
    batch: bool = False
    logprobs: bool = False
    rank: int | None = None


def read_sequences(data: Mapping[str, Any]) -> Sequences:
    """Read a generation request. Prompts times samples are sequences, each with a KV and so with a room of its own."""
    params = data.get("sampling_params")
    samples = data.get("n", params.get("n") if isinstance(params, dict) else None)
    samples = samples if type(samples) is int and samples > 1 else 1
    prompts = _prompts(data)
    count, batch = max(prompts, 1) * samples, prompts > 0 or samples > 1
    if count > _MOST:
        count, batch = 1, False  # the workers number the rooms of such a batch themselves, from the one that they get
    rank = next((data[name] for name in ("routed_dp_rank", "data_parallel_rank") if type(data.get(name)) is int), None)
    return Sequences(count, batch, data.get("return_logprob") is True, rank)


def _prompts(data: Mapping[str, Any]) -> int:
    """Return the length of a batch of prompts, 0 for a single one."""
    for name in ("text", "input_ids", "input_embeds", "prompt"):
        value = data.get(name)
        if not isinstance(value, list) or not value:
            continue
        first = value[0]
        if name == "input_embeds":  # one prompt is already a list of vectors
            first = first[0] if isinstance(first, list) and first else None
        if isinstance(first, str | list):
            return len(value)
    return 0


def draw_rooms(count: int, rng: Random, rank: int = 0, dp_size: int = 1) -> list[int]:
    """Draw rooms. Each is ``rank`` modulo ``dp_size``: that is how a prefill worker finds the rank for a request."""
    top = ROOMS // dp_size
    return [rng.randrange(top) * dp_size + rank for _ in range(count)]


def bootstrap_fields(host: str, port: int | None, rooms: list[int], batch: bool) -> dict[str, object]:
    """Return the three fields; ``port`` None leaves it to the worker."""
    if not batch:
        return {"bootstrap_host": host, "bootstrap_port": port, "bootstrap_room": rooms[0]}
    count = len(rooms)
    return {"bootstrap_host": [host] * count, "bootstrap_port": [port] * count, "bootstrap_room": rooms}


def splice(body: bytes, fields: Mapping[str, object]) -> bytes | None:
    """Return the body of a JSON object with more fields at its end, every other byte as it was; None if it is none."""
    end = len(body.rstrip(_SPACE)) - 1
    start = len(body) - len(body.lstrip(_SPACE))
    if end <= start or body[start] != ord("{") or body[end] != ord("}"):
        return None
    more = json.dumps(fields, separators=(",", ":")).encode()[1:-1]
    last = body[max(start + 1, end - 64) : end].strip(_SPACE) or body[start + 1 : end].strip(_SPACE)
    return b"%b%b%b%b" % (body[:end], b"," if last else b"", more, body[end:])
