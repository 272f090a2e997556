"""Names of KV pages: a chain of SHA-256 digests, so that equal keys mean equal tokens, history and layout.

Each digest starts with a tag of its own (no root can equal a page key), every field of a root is named (an adapter
cannot pass for a salt), and tokens have a fixed width (no two token lists share an encoding).
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping, Sequence

from gaugeblock.reference.kv.storage import KVShape

ROOT_TAG = b"gaugeblock.kv.root\0"
SPACE_TAG = b"gaugeblock.kv.space\0"
PAGE_TAG = b"gaugeblock.kv.page\0"


def root_key(
    model: str,
    dtype: str,
    shape: KVShape,
    *,
    constants: Mapping[str, object] | None = None,
    tp_rank: int = 0,
    tp_size: int = 1,
) -> bytes:
    """Return the key that all chains of one model, type and layout start from. ``model``: name and revision.

    ``constants``: what else a token's KV depends on and the revision of the weights does not say, by name.
    """
    fields = {
        "model": model,
        "constants": dict(constants or {}),
        "dtype": dtype,
        "layers": shape.layers,
        "kv_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "page_size": shape.page_size,
        "tp_rank": tp_rank,
        "tp_size": tp_size,
    }
    return _digest(ROOT_TAG, fields)


def space_key(root: bytes, *, adapter: str = "", salt: str = "") -> bytes:
    """Return the key that the chains of one adapter and one salt start from: no other request can hit them."""
    if not adapter and not salt:
        return root
    return _digest(SPACE_TAG + root, {"adapter": adapter, "salt": salt})


def page_key(parent: bytes, tokens: Sequence[int]) -> bytes:
    """Return the key of the page that holds ``tokens`` after the chain ``parent``."""
    return hashlib.sha256(PAGE_TAG + parent + struct.pack(f"<{len(tokens)}q", *tokens)).digest()


def chain_keys(root: bytes, tokens: Sequence[int], page_size: int) -> list[bytes]:
    """Return the keys of all full pages of ``tokens``, in order."""
    keys: list[bytes] = []
    for start in range(0, len(tokens) - page_size + 1, page_size):
        keys.append(page_key(keys[-1] if keys else root, tokens[start : start + page_size]))
    return keys


def _digest(tag: bytes, fields: dict[str, object]) -> bytes:
    return hashlib.sha256(tag + json.dumps(fields, sort_keys=True).encode()).digest()
