"""HTTP/1.1 on the wire, for both sides of the router: heads are parsed strictly and kept in their original spelling.

Strict because a proxy that reads a message otherwise than its peer can be made to smuggle one request inside another
(RFC 9112, sections 5.1, 6.1 and 11.2).
"""

from __future__ import annotations

import re
from typing import NamedTuple

Header = tuple[bytes, bytes]

HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer "
    b"transfer-encoding upgrade".split()
)
_SAID_ANEW = frozenset((b"host", b"content-length", b"expect"))  # the last one is answered, not forwarded
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
_TARGET = re.compile(rb"[\x21-\x7e]+\Z")


class MalformedError(Exception):
    """The bytes are not the HTTP/1.x that they claim to be."""


class Head(NamedTuple):
    """A parsed head. ``first`` holds the three parts of the first line, ``headers`` the fields as they came, and
    ``fields`` the last value of each by lower-case name, of ``connection`` all of them."""

    first: tuple[bytes, bytes, bytes]
    headers: list[Header]
    fields: dict[bytes, bytes]


def parse_head(block: bytes) -> Head:
    """Parse a head without its final empty line.

    Raises:
        MalformedError: not three parts in the first line, or a field that is folded, nameless or spaced before its
        colon, or several lengths that disagree.
    """
    lines = block.split(b"\r\n")
    first = lines[0].split(b" ", 2)
    if len(first) == 2 and first[0].startswith(b"HTTP/"):
        first.append(b"")  # a status line may lack the reason
    if len(first) != 3:
        raise MalformedError("the first line does not have three parts")
    headers: list[Header] = []
    fields: dict[bytes, bytes] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(b":")
        if not colon or not _TOKEN.match(name) or b"\n" in value or b"\r" in value or b"\0" in value:
            raise MalformedError("a header field is malformed")
        value = value.strip(b" \t")
        lower = name.lower()
        headers.append((name, value))
        fields[lower] = _again(lower, fields[lower], value) if lower in fields else value
    return Head((first[0], first[1], first[2]), headers, fields)


def _again(name: bytes, before: bytes, value: bytes) -> bytes:
    """Return what counts when a field comes more than once."""
    if name == b"connection":
        return before + b"," + value
    if name == b"transfer-encoding" or (name == b"content-length" and before != value):
        raise MalformedError("the length of the body is given twice")
    return value


def parse_request_head(block: bytes) -> Head:
    """Parse a request's head.

    Raises:
        MalformedError: as :func:`parse_head`, or the method, target or version is not legal.
    """
    head = parse_head(block)
    method, target, version = head.first
    if not _TOKEN.match(method) or not _TARGET.match(target) or version not in (b"HTTP/1.1", b"HTTP/1.0"):
        raise MalformedError("the request line is malformed")
    return head


def parse_response_head(block: bytes) -> tuple[int, Head]:
    """Parse a response's head; returns its status too.

    Raises:
        MalformedError: as :func:`parse_head`, or the status line is not HTTP/1.x with three digits.
    """
    head = parse_head(block)
    version, status, _ = head.first
    if not version.startswith(b"HTTP/1.") or not status.isdigit() or len(status) != 3:
        raise MalformedError("the status line is malformed")
    return int(status), head


def body_length(fields: dict[bytes, bytes]) -> int | None:
    """Return the body's length in bytes, -1 for chunked, None when the head names neither.

    Raises:
        MalformedError: both are named, the length is no number, or the coding is not plain ``chunked``.
    """
    coding, length = fields.get(b"transfer-encoding"), fields.get(b"content-length")
    if coding is not None:
        if length is not None or coding.lower() != b"chunked":
            raise MalformedError("the transfer coding is not plain chunked")
        return -1
    if length is None:
        return None
    if not length.isdigit() or len(length) > 18:
        raise MalformedError("the content length is no number")
    return int(length)


def end_to_end(head: Head) -> list[Header]:
    """Return the fields that a proxy forwards: all but the hop-by-hop ones and those named in ``Connection``."""
    drop = HOP_BY_HOP
    connection = head.fields.get(b"connection")
    if connection is not None and connection.lower() not in (b"close", b"keep-alive"):
        drop = HOP_BY_HOP | _tokens(connection)
    return [header for header in head.headers if header[0].lower() not in drop]


def request_headers(head: Head) -> list[Header]:
    """Return the fields of a request that go to a worker: all end-to-end ones but those that the router says itself."""
    return [header for header in end_to_end(head) if header[0].lower() not in _SAID_ANEW]


def keeps_alive(head: Head, version: bytes) -> bool:
    """Whether the sender of a head is willing to reuse its connection."""
    connection = head.fields.get(b"connection")
    if version != b"HTTP/1.1":
        return connection is not None and b"keep-alive" in _tokens(connection)
    return connection is None or b"close" not in _tokens(connection)


def _tokens(value: bytes) -> set[bytes]:
    return {token.strip().lower() for token in value.split(b",")}
