"""RTR-067."""

from __future__ import annotations

from urllib.parse import urlsplit

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.conformance.router.refusal import must_be_json_error
from gaugeblock.fixtures.errors import TargetFault
from gaugeblock.fixtures.targets.router import CHAT, RouterLab

LIMIT = 64 << 10
SIZE = 16 << 20  # bytes: more than the buffers of a loopback connection hold
SECONDS = 10.0


@check(
    "RTR-067",
    feature="body-limit",
    level="extended",
    bound=f"exact: 413 with an error in JSON for bodies of {(LIMIT + 4096) >> 10} KiB and {SIZE >> 20} MiB where "
    f"{LIMIT >> 10} KiB are allowed, with their length and in chunks, within {SECONDS:g} s; no arrival; 200 for half",
    sources=(
        "https://www.rfc-editor.org/rfc/rfc9110#section-15.5.14",
        "https://github.com/rwf2/Rocket/issues/2783",
        "https://pypi.org/project/sglang-router/0.3.2/",
    ),
)
def test_rtr_067(router_lab: LabFactory) -> None:
    """A body beyond the limit is refused with 413, and the client that still sends it can read that.

    Look at bodies in chunks, whose size no header tells, and at closing a connection with unread bytes: that resets it,
    and the answer is lost.
    """
    lab = router_lab(needs=("body-limit",), max_body_bytes=LIMIT)
    lab.send("x" * (LIMIT // 2)).reply.expect(200)
    for size in (LIMIT + 4096, SIZE):
        body = lab.body(f"large {'x' * size}")
        for how, chunked in (("with its length", False), ("in chunks", True)):
            what = f"a body of {len(body)} bytes {how}, {LIMIT} being the limit"
            status, answer = _post(lab, body, what, chunked=chunked)
            served = [arrival.worker for arrival in lab.arrivals("large xxx")]
            assert not served, f"{what}, reached {served}"
            assert status == 413, f"{what}: 413 was due, got {status} {answer[:120]!r}"
            must_be_json_error(lab.url, status, answer, what)
    lab.send("afterwards").reply.expect(200)


def _post(lab: RouterLab, body: bytes, what: str, *, chunked: bool) -> tuple[int, bytes]:
    """Send all of a body, whatever comes back meanwhile, then read the answer; returns its status and body."""
    parts = urlsplit(lab.url)
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}"
    head = f"POST {CHAT} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n{framing}\r\n\r\n"
    pieces = [body[at : at + LIMIT] for at in range(0, len(body), LIMIT)]
    data = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n" if chunked else body
    answer = b""
    try:
        with lab.connect(SECONDS) as line:
            line.sendall(head.encode() + data)
            while b"\r\n\r\n" not in answer or len(answer) < _length(answer):
                piece = line.recv(65536)
                if not piece:
                    break
                answer += piece
    except OSError as error:
        raise TargetFault(
            f"{what}: a client that still sends it could not read why it was refused: "
            f"{type(error).__name__} after {len(answer)} bytes of answer"
        ) from None
    top, _, rest = answer.partition(b"\r\n\r\n")
    status = top.split(b" ", 2)[1:2]
    return int(status[0]) if status else 0, rest


def _length(answer: bytes) -> int:
    """Return how long an answer with a Content-Length is in all; without one it ends with the connection."""
    top = answer.partition(b"\r\n\r\n")[0]
    named = [line[15:] for line in top.split(b"\r\n") if line.lower().startswith(b"content-length:")]
    return len(top) + 4 + int(named[0]) if named else 1 << 62
