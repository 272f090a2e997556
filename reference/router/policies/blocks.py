"""Prompts as short keys: 4 bytes for each block of 128, so that a router need not keep its clients' texts.

A key costs a thirty-second of its prompt, and holds nothing that could be read. Two prompts share as many leading units
as they share whole blocks, and the last one if they are equal; blocks that differ look alike once in 4 billion, and
then a prediction is wrong, nothing else. Hashes are Python's own, keyed anew in each process: nobody outside can make
two blocks collide.
"""

from __future__ import annotations

from array import array
from functools import lru_cache
from hashlib import blake2b

BLOCK = 128  # bytes: 32 token ids, or about as many tokens of text
SCOPE = 8  # bytes of a key before its first block
_UNIT = 4  # bytes of each block's hash


def key_of(model: str | None, unit: int, prompt: bytes) -> bytes:
    """Return the key of a prompt, scoped by model and by the size of its units."""
    hashes = array("q", [hash(prompt[at : at + BLOCK]) for at in range(0, len(prompt), BLOCK)])
    return _scope(model, unit) + memoryview(hashes).cast("B").cast("I")[::2].tobytes()


def matched_bytes(depth: int, prompt: bytes) -> int:
    """Return the bytes of a prompt that the first ``depth`` bytes of its key stand for."""
    return max(0, min((depth - SCOPE) // _UNIT * BLOCK, len(prompt)))


def matched_depth(size: int) -> int:
    """Return the depth in a key at which at least ``size`` bytes of its prompt are matched."""
    return SCOPE + -(-size // BLOCK) * _UNIT


@lru_cache(maxsize=256)
def _scope(model: str | None, unit: int) -> bytes:
    return blake2b(b"%d %s" % (unit, (model or "").encode(errors="replace")), digest_size=SCOPE).digest()
