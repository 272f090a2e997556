"""Prompts of a request as token ids."""

from __future__ import annotations

from typing import Any

from gaugeblock.reference.engine.http.errors import bad
from gaugeblock.reference.engine.http.fields import Fields, shown, well_formed
from gaugeblock.reference.engine.http.front import Front
from gaugeblock.reference.engine.http.sampling import check_ids

Ids = tuple[int, ...]


async def text_ids(front: Front, value: Any, path: str) -> Ids:
    """Encode one prompt, with the special tokens that the model folder adds.

    Raises:
        ApiError: 400, not a non-empty string.
    """
    if not isinstance(value, str) or not value:
        raise bad(path, f"{path} must be a non-empty string, got {shown(value)}")
    return tuple(await front.encode(well_formed(value, path)))


def given_ids(front: Front, value: Any, path: str) -> Ids:
    """Check one prompt of token ids.

    Raises:
        ApiError: 400, not a non-empty list of ids of the vocabulary.
    """
    if not isinstance(value, list) or not value:
        raise bad(path, f"{path} must be a non-empty list of token ids, got {shown(value)}")
    return check_ids(value, path, front.vocab_size)


async def native_prompts(front: Front, body: Fields) -> tuple[list[Ids], bool]:
    """The prompts of ``/generate`` and whether they came as a list of prompts."""
    has_text, has_ids = "text" in body, "input_ids" in body
    if has_text and has_ids:
        raise bad("input_ids", "give either text or input_ids, not both")
    if not has_text and not has_ids:
        raise bad("text", "text or input_ids is needed: a prompt, or a list of prompts")
    name = "text" if has_text else "input_ids"
    return await read_prompts(front, body.get(name), name, text=has_text, ids=has_ids)


async def read_prompts(front: Front, value: Any, name: str, *, text: bool, ids: bool) -> tuple[list[Ids], bool]:
    """One prompt or a list of them, as text, as token ids, or (both flags) as either."""
    if text and isinstance(value, str):
        return [await text_ids(front, value, name)], False
    if isinstance(value, list) and value:
        if ids and not isinstance(value[0], list | str):
            return [given_ids(front, value, name)], False
        if len(value) > front.capacity:
            raise bad(name, f"{name} holds {len(value)} prompts; at most {front.capacity} may run and wait")
        if text and isinstance(value[0], str):
            return [await text_ids(front, item, f"{name}[{i}]") for i, item in enumerate(value)], True
        if ids and isinstance(value[0], list):
            return [given_ids(front, item, f"{name}[{i}]") for i, item in enumerate(value)], True
    kinds = [*(["a non-empty string"] if text else []), *(["a non-empty list of token ids"] if ids else [])]
    raise bad(name, f"{name} must be {' or '.join(kinds)}, or a list of prompts, got {shown(value)}")
