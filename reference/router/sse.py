"""What the router knows of server-sent events: where one ends, how a stream must end, and how an error is said."""

from __future__ import annotations

import json

_HELD_LIMIT = 1 << 20
_MESSAGES_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
}
"""The ``type`` of an error by status in the Messages API; of all others ``api_error``."""


class EventGuard:
    """Lets whole events through, byte for byte, and holds back an unfinished one until its rest arrives.

    An event that its worker never finished is not sent: half an event would reach the client as a whole one as soon as
    the terminal error follows. ``done_required`` says whether the stream must end with ``data: [DONE]``.
    """

    def __init__(self, done_required: bool) -> None:
        self.done_required = done_required
        self.done = False
        self.failed = False  # the worker itself said that it failed
        self._held = b""

    def feed(self, piece: bytes) -> bytes:
        """Return what may be sent now, possibly nothing."""
        data = self._held + piece if self._held else piece
        end = len(data) if data.endswith(b"\n\n") else _last_boundary(data)
        if len(data) - end > _HELD_LIMIT:
            end = len(data)
        self._held = data[end:]
        self._note(data[:end])
        return data[:end]

    def rest(self) -> bytes:
        """Return what is still held back, at a clean end of the stream."""
        rest, self._held = self._held, b""
        self._note(rest)
        return rest

    @property
    def complete(self) -> bool:
        """Whether the stream ended the way its API promises."""
        return self.done or not self.done_required

    def _note(self, events: bytes) -> None:
        if not events or not self.done_required:
            return
        last = events.rstrip(b"\r\n").rpartition(b"\n")[2]
        if last in (b"data: [DONE]", b"data:[DONE]") or b"\ndata: [DONE]\n" in b"\n" + events[-256:] + b"\n":
            self.done = True
        self.failed = last.startswith(b'data: {"error"')


def _last_boundary(data: bytes) -> int:
    """Return the index after the last empty line, 0 if there is none."""
    ends = [data.rfind(b"\n\n") + 2, data.rfind(b"\n\r\n") + 3, data.rfind(b"\r\r") + 2]
    return max(end if end >= 3 else 0 for end in ends)


def error_event(family: str, status: int, code: str, message: str) -> bytes:
    """Return the terminal event that tells a client of this API family that its stream has failed."""
    if family == "responses":
        body = {"type": "error", "code": code, "message": message, "param": None}
        return b"event: error\ndata: %b\n\n" % json.dumps(body).encode()
    if family == "messages":
        return b"event: error\ndata: %b\n\n" % error_body(family, status, code, message)
    return b"data: %b\n\n" % error_body(family, status, code, message)


def error_body(family: str, status: int, code: str, message: str) -> bytes:
    """Return the JSON of an error in the shape that a client of this API family expects."""
    if family == "messages":
        error: dict[str, object] = {"type": _MESSAGES_KINDS.get(status, "api_error"), "message": message}
        return json.dumps({"type": "error", "error": error}).encode()
    kind = "invalid_request_error" if status < 500 else "server_error"
    error = {"message": message, "type": kind, "param": None, "code": code}
    return json.dumps({"error": error}).encode()
