"""Every call ends in time, whatever the server does."""

import subprocess
import sys
import time

import pytest

from gaugeblock.fixtures.errors import EnvironmentFault, TargetFault, TargetGone
from gaugeblock.fixtures.targets.engine import EngineTarget
from gaugeblock.fixtures.targets.wire import Limits
from gaugeblock.fixtures.workers.hostile import endless, head, pieces, say, silent

LIMITS = Limits(connect=0.5, idle=0.3, total=0.8)
SLACK = 1.5  # seconds that a busy machine may add


def fails_in_time(call, *words):
    start = time.monotonic()
    with pytest.raises(TargetFault) as caught:
        call()
    assert time.monotonic() - start < LIMITS.total + SLACK
    for word in words:
        assert word in str(caught.value)


def test_a_server_that_never_answers_ends_at_the_total_limit(hostile):
    target = EngineTarget(hostile({"/x": silent()}).url)
    fails_in_time(lambda: target.get("/x", LIMITS), "/x", "had not ended after 0.8 s", "before the answer")


def test_a_plain_answer_may_take_longer_than_the_idle_limit(hostile):
    def late(connection, closing):
        closing.wait(0.5)
        say(200, b"{}")(connection, closing)

    assert EngineTarget(hostile({"/x": late}).url).get("/x", LIMITS).json() == {}


def test_a_body_that_stops_ends_at_the_idle_limit(hostile):
    target = EngineTarget(hostile({"/x": silent(head(200, length=100) + b"{")}).url)
    fails_in_time(lambda: target.get("/x", LIMITS), "sent nothing for 0.3 s after 1 bytes")


def test_headers_sent_for_ever_end_at_the_total_limit(hostile):
    target = EngineTarget(hostile({"/x": endless(b"a", 0.05, prefix=b"HTTP/1.1 200 OK\r\nx-slow: ")}).url)
    fails_in_time(lambda: target.get("/x", LIMITS), "had not ended after 0.8 s", "total limit")


def test_a_stream_that_never_ends_ends_at_the_total_limit(hostile):
    target = EngineTarget(hostile({"/generate": endless(b'data: {"a": 1}\n\n', 0.02)}).url)

    def read():
        with target.stream("/generate", {}, limits=LIMITS) as events:
            for _ in events:
                pass

    fails_in_time(read, "had not ended after 0.8 s", "total limit")


def test_a_body_shorter_than_promised_is_a_broken_connection(hostile):
    target = EngineTarget(hostile({"/x": pieces(b"{}", kind="application/json", length=10)}).url)
    fails_in_time(lambda: target.get("/x", LIMITS), "broke the connection")
    with pytest.raises(TargetFault) as caught:
        target.get("/x", LIMITS)
    assert not isinstance(caught.value, TargetGone), "it still listens"


DIES = """
import os, signal, socket
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
connection, _ = listener.accept()
connection.recv(65536)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_server_that_dies_under_a_request_is_gone_and_stays_gone():
    with subprocess.Popen([sys.executable, "-c", DIES], stdout=subprocess.PIPE, text=True) as process:
        target = EngineTarget(f"http://127.0.0.1:{process.stdout.readline().strip()}", api_key="s3cr3t")
        with pytest.raises(TargetGone, match=r"broke the connection before the answer.*nothing listens there any more"):
            target.get("/s3cr3t")
        with pytest.raises(TargetGone, match=r"/\*\*\* refused the connection"):
            target.get("/s3cr3t")


def test_a_port_that_nobody_listens_on_is_named_with_the_remedy():
    with pytest.raises(
        EnvironmentFault, match=r"http://127\.0\.0\.1:9/v1/models refused.*Start it, or correct the URL"
    ):
        assert EngineTarget("http://127.0.0.1:9").probed


def test_leaving_a_stream_early_closes_it(hostile):
    server = hostile({"/generate": endless(b"data: 1\n\n", 0.01)})
    with EngineTarget(server.url).stream("/generate", {}) as events:
        assert next(events).data == "1"
    assert server.left.wait(5)


def test_redirects_are_not_followed(hostile):
    server = hostile({"/x": say(302, b"{}"), "/": say(200, b"{}")})
    assert EngineTarget(server.url).get("/x").status == 302
    assert len(server.received) == 1
