"""A client at the level of the socket: it can do what HTTP allows and no library does, and sees what one would mend."""

from __future__ import annotations

import time
from dataclasses import dataclass
from types import TracebackType

from gaugeblock.fixtures.errors import TargetFault
from gaugeblock.fixtures.targets.router import RouterLab

LIMIT = 5.0  # seconds for all that one connection has to say


@dataclass(frozen=True)
class RawReply:
    """One response as it came: names in their case, fields in their order, the body without its framing."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def values(self, name: str) -> list[str]:
        """Return the values of a field in their order; the name in any case."""
        return [value for key, value in self.headers if key.lower() == name.lower()]


class RawClient:
    """One connection to the router of a lab; all of it must be over within ``limit`` seconds."""

    def __init__(self, lab: RouterLab, limit: float = LIMIT) -> None:
        self._deadline = time.monotonic() + limit
        self._socket = lab.connect(limit)
        self._file = self._socket.makefile("rb")

    def __enter__(self) -> RawClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._socket.close()

    def send(self, data: bytes) -> None:
        """Write bytes."""
        self._socket.sendall(data)

    def reply(self, *, bodiless: bool = False) -> RawReply:
        """Read the next response, an interim one too. ``bodiless``: it answers HEAD.

        Raises:
            TargetFault: it does not come in time, or is no HTTP.
        """
        lines = [self._line()]
        while (line := self._line()) != b"":
            lines.append(line)
        words = lines[0].decode("latin-1").split(" ", 2)
        if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdigit():
            raise TargetFault(f"the router wrote what is no status line: {lines[0]!r}")
        pairs = (line.decode("latin-1").partition(":") for line in lines[1:])
        headers = tuple((name, value.strip()) for name, _, value in pairs)
        status = int(words[1])
        silent = bodiless or status < 200 or status in (204, 304)
        return RawReply(status, headers, b"" if silent else self._body({n.lower(): v for n, v in headers}))

    def _body(self, fields: dict[str, str]) -> bytes:
        if "chunked" not in fields.get("transfer-encoding", ""):
            return self._read(int(fields.get("content-length", "0")))
        body = b""
        while size := int(self._line().partition(b";")[0], 16):
            body += self._read(size)
            self._line()
        while self._line():
            pass
        return body

    def _line(self) -> bytes:
        self._limit()
        try:
            line = self._file.readline(65536)
        except OSError as error:
            raise TargetFault(f"the router did not go on with its answer: {error}") from None
        if not line.endswith(b"\n"):
            raise TargetFault(f"the router closed the connection within an answer; its last bytes: {line!r}")
        return line.rstrip(b"\r\n")

    def _read(self, size: int) -> bytes:
        self._limit()
        try:
            data = self._file.read(size)
        except OSError as error:
            raise TargetFault(f"the router did not go on with a body of {size} bytes: {error}") from None
        if len(data) < size:
            raise TargetFault(f"the router closed the connection after {len(data)} of {size} bytes")
        return data

    def _limit(self) -> None:
        self._socket.settimeout(max(0.001, self._deadline - time.monotonic()))


def post(path: str, body: bytes, *fields: str) -> bytes:
    """Return a whole POST request; ``fields`` are header lines."""
    return head("POST", path, f"Content-Length: {len(body)}", *fields) + body


def head(method: str, path: str, *fields: str) -> bytes:
    """Return the head of a request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: router", "Content-Type: application/json", *fields, "", ""]
    return "\r\n".join(lines).encode("latin-1")
