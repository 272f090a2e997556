"""RTR-049."""

from __future__ import annotations

import pytest

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.fixtures.errors import TargetFault
from gaugeblock.fixtures.targets.router import RouterLab
from gaugeblock.fixtures.targets.wire import Limits
from gaugeblock.fixtures.workers.script import HEALTHY, Answer

LIMIT = 8.0
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
BROKEN = {
    "no-http": b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
    "no-status": b"HTTP/1.1 abc OK\r\nContent-Length: 2\r\n\r\n{}",
    "no-colon": OK + b"this is no field\r\nContent-Length: 2\r\n\r\n{}",
    "two-lengths": OK + b"Content-Length: 2\r\nContent-Length: 4\r\n\r\n{}{}",
    "bad-length": OK + b"Content-Length: -2\r\n\r\n{}",
    "bad-chunk": OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\nxyz\r\n{}\r\n0\r\n\r\n",
    "short-body": OK + b"Content-Length: 4000\r\n\r\n{}",
    "endless-head": OK + b"X-Long: " + b"x" * (2 << 20) + b"\r\nContent-Length: 2\r\n\r\n{}",
}


@check(
    "RTR-049",
    feature="proxy",
    bound="exact: an error status or a broken connection within 8 s, and the next request is served",
    sources=("https://www.rfc-editor.org/rfc/rfc9112#section-6.3", "https://cwe.mitre.org/data/definitions/444.html"),
)
@pytest.mark.parametrize("answer", BROKEN.values(), ids=BROKEN.keys())
def test_rtr_049(router_lab: LabFactory, answer: bytes) -> None:
    """What is no valid HTTP from a worker is an error, and the router goes on.

    Half an answer, or one whose end nobody can know, was passed on as a whole one. Look at how strictly the worker's
    head and body are read; what the client could read otherwise than the router can be smuggled past it.
    """
    lab = router_lab()
    for worker in lab.workers:
        worker.always(Answer(raw=answer))
    wrong = _taken_for_whole(lab)
    assert not wrong, f"a worker's malformed answer was passed on as a whole one: {wrong}"
    for worker in lab.workers:
        worker.always(HEALTHY)
    reply = lab.send("are you still there").reply
    assert reply.status == 200, f"after a malformed answer the router gives a good one as {reply.shown}"


def _taken_for_whole(lab: RouterLab) -> str:
    try:
        reply = lab.send("malformed", limits=Limits(2.0, LIMIT, LIMIT)).reply
    except TargetFault as fault:
        if "limit of the call" in str(fault):
            raise
        return ""
    return reply.shown if reply.status < 400 else ""
