"""Bodies on the wire: of a known length, chunked, or until the connection closes."""

from __future__ import annotations

import re

from gaugeblock.reference.router.http1 import MalformedError

_HEX = re.compile(rb"[0-9A-Fa-f]{1,15}\Z")
_CHUNK_LINE_LIMIT = 4096


class BodyReader:
    """Takes a body of ``length`` bytes (-1: chunked, None: until the close) in pieces of any size.

    ``done`` once it is whole; ``rest`` is then what came after it.
    """

    def __init__(self, length: int | None) -> None:
        self._left = length
        self._decoder = ChunkedDecoder() if length == -1 else None
        self.done = length == 0
        self.rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Return the pieces of content in ``data``.

        Raises:
            MalformedError: the chunks are broken.
        """
        if self._decoder is not None:
            pieces = self._decoder.feed(data)
            self.done, self.rest = self._decoder.done, self._decoder.rest
            return pieces
        if self._left is None:
            return [data]
        if len(data) > self._left:
            data, self.rest = data[: self._left], data[self._left :]
        self._left -= len(data)
        self.done = self._left == 0
        return [data] if data else []


class ChunkedDecoder:
    """Takes the bytes of a chunked body in pieces of any size and gives the content back."""

    def __init__(self) -> None:
        self.done = False
        self.rest = b""  # what came after the end
        self._buffer = b""
        self._left = 0  # content bytes still to come in this chunk
        self._after_chunk = False
        self._in_trailer = False

    def feed(self, data: bytes) -> list[bytes]:
        """Return the pieces of content in ``data``.

        Raises:
            MalformedError: the framing is broken.
        """
        data = self._buffer + data if self._buffer else data
        pieces: list[bytes] = []
        at = 0
        while not self.done:
            if self._left:
                piece = data[at : at + self._left]
                if piece:
                    pieces.append(piece)
                at += len(piece)
                self._left -= len(piece)
                if self._left:
                    break
                self._after_chunk = True
            end = data.find(b"\r\n", at)
            if end < 0:
                if len(data) - at > _CHUNK_LINE_LIMIT:
                    raise MalformedError("a chunk's size line is too long")
                break
            self._line(data[at:end])
            at = end + 2
        self._buffer = b"" if self.done else data[at:]
        if self.done:
            self.rest = data[at:]
        return pieces

    def _line(self, line: bytes) -> None:
        if self._after_chunk:
            if line:
                raise MalformedError("a chunk is longer than its size")
            self._after_chunk = False
        elif self._in_trailer:
            self.done = not line
        else:
            size = line.partition(b";")[0].rstrip(b" \t")
            if not _HEX.match(size):
                raise MalformedError("a chunk's size is no hexadecimal number")
            self._left = int(size, 16)
            self._in_trailer = self._left == 0


def chunk(piece: bytes) -> bytes:
    """Frame a non-empty piece of content as one chunk."""
    return b"%x\r\n%b\r\n" % (len(piece), piece)
