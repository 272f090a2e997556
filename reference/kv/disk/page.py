"""The file of one page: a header that says whose bytes follow, and a checksum over both.

| offset | bytes | field |
|---|---|---|
| 0 | 8 | magic |
| 8 | 4 | version |
| 12 | 2 | length of the key |
| 14 | 2 | length of the parent's key |
| 16 | 8 | size of the payload in bytes |
| 24 | 32 | SHA-256 of the store's identity |
| 56 | 64 | key, zeros behind it |
| 120 | 64 | parent's key, zeros behind it |
| 184 | 16 | XXH3-128 of bytes 0…183 and the payload |
| 200 | 3896 | zeros |

Little-endian. The payload follows at 4096, at the beginning of a block, and ends the file. The checksum finds
damage; it is no defence against somebody who can write to the folder.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field

import xxhash

from gaugeblock.reference.kv.disk.io import Buffer

MAGIC = b"GBKVPAGE"
VERSION = 1
LONGEST_KEY = 64  # bytes
FIELDS = struct.Struct(f"<8sIHHQ32s{LONGEST_KEY}s{LONGEST_KEY}s")
CHECKSUM = 16  # bytes
SEALED = FIELDS.size + CHECKSUM
HEADER = 4096
PADDING = bytes(HEADER - SEALED)


class PageDamaged(Exception):
    """These bytes are not the page that was asked for; the message says what differs."""


@dataclass(frozen=True)
class PageData:
    """A page to store. ``parent`` is the key of the page before it, or of the root; ``data`` is not copied.

    ``owner``: whose quota it counts against.
    """

    key: bytes
    parent: bytes
    data: Buffer
    owner: str = ""

    @property
    def stored(self) -> StoredPage:
        """What the index has to know of it."""
        return StoredPage(self.key, self.parent, memoryview(self.data).nbytes, self.owner)


@dataclass(frozen=True, slots=True)
class StoredPage:
    """A page in the store. ``size``: bytes of its payload. ``owner`` is in the index alone, not in the page's file."""

    key: bytes
    parent: bytes
    size: int
    owner: str = field(default="", compare=False)


def identity_digest(identity: str) -> bytes:
    """Return the 32 bytes that stand for an identity in a header."""
    return hashlib.sha256(identity.encode()).digest()


def header_of(page: StoredPage, digest: bytes, payload: Buffer) -> bytes:
    """Return the header of a page whose store has the identity ``digest``.

    Raises:
        ValueError: the key is empty, or a key is longer than ``LONGEST_KEY`` bytes.
    """
    if not 0 < len(page.key) <= LONGEST_KEY or len(page.parent) > LONGEST_KEY:
        raise ValueError(f"a key has 1 to {LONGEST_KEY} bytes, not {len(page.key)} (its parent's {len(page.parent)})")
    fields = FIELDS.pack(MAGIC, VERSION, len(page.key), len(page.parent), page.size, digest, page.key, page.parent)
    return fields + checksum(fields, payload) + PADDING


def checksum(fields: bytes, payload: Buffer) -> bytes:
    """Return the checksum of a header's fields and the payload."""
    hasher = hasher_of(fields)
    hasher.update(payload)
    return hasher.digest()


def hasher_of(fields: bytes) -> xxhash.xxh3_128:
    """Return a checksum that has seen a header's fields, to be updated with the payload as it comes."""
    return xxhash.xxh3_128(fields)


def parse(header: bytes, digest: bytes) -> StoredPage:
    """Return what a header says, its checksum not yet compared.

    Raises:
        PageDamaged: it is too short, or of another format, version or identity.
    """
    if len(header) != HEADER:
        raise PageDamaged(f"the file ends after {len(header)} bytes of a header of {HEADER}")
    magic, version, key_length, parent_length, size, owner, key, parent = FIELDS.unpack_from(header)
    if (magic, version) != (MAGIC, VERSION):
        raise PageDamaged(f"it starts with {magic!r} version {version}, not {MAGIC!r} version {VERSION}")
    if owner != digest:
        raise PageDamaged(f"it belongs to the identity {owner.hex()[:16]}…, not {digest.hex()[:16]}…")
    if not 0 < key_length <= LONGEST_KEY or parent_length > LONGEST_KEY:
        raise PageDamaged(f"keys of {key_length} and {parent_length} bytes")
    if header[SEALED:] != PADDING:
        raise PageDamaged("there is something behind the checksum")
    return StoredPage(key[:key_length], parent[:parent_length], size)


def verify(header: bytes, hasher: xxhash.xxh3_128) -> None:
    """Raise :class:`PageDamaged` unless header and payload, both seen by ``hasher``, were written together."""
    if hasher.digest() != header[FIELDS.size : SEALED]:
        raise PageDamaged("the checksum does not agree with header and payload")
