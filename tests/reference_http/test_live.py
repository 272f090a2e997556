"""Behind a real server: disconnects, streams as they happen, a responsive loop, the end of the process."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from gaugeblock.reference.engine.http.server import listening_socket

WAIT = 10.0
LONG = {"text": "ab", "sampling_params": {"max_new_tokens": 50}}
SERVED = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("fakes", sys.argv[1])
fakes = importlib.util.module_from_spec(spec)
sys.modules["fakes"] = fakes
spec.loader.exec_module(fakes)
from gaugeblock.reference.engine.http import server
engine = fakes.FakeEngine()
engine.start()
if len(sys.argv) > 2:
    engine.gate.clear()
    server.GRACE_SECONDS = float(sys.argv[2])
try:
    server.run(engine, server.listening_socket("127.0.0.1", 0), server.build_app(engine))
finally:
    engine.stop()
"""


def connect(url: str, path: str, body: dict[str, Any]) -> socket.socket:
    """Send a request on a connection of its own, which the test can close when it likes."""
    host, port = url.removeprefix("http://").split(":")
    raw = json.dumps(body).encode()
    connection = socket.create_connection((host, int(port)), timeout=WAIT)
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {len(raw)}\r\n\r\n"
    )
    connection.sendall(head.encode() + raw)
    return connection


def wait_for(condition: Any) -> None:
    tick = threading.Event()
    for _ in range(1000):
        if condition():
            return
        tick.wait(0.01)
    raise AssertionError("not within 10 s")


PATHS = [
    ("/generate", LONG),
    ("/generate", {**LONG, "sampling_params": {"max_new_tokens": 50, "n": 3}}),
    ("/v1/completions", {"prompt": "ab", "max_tokens": 50}),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}]}),
    ("/v1/responses", {"input": "a"}),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("path", "body"), PATHS)
def test_a_disconnect_aborts_at_once(live: str, fake: Any, path: str, body: dict[str, Any], stream: bool) -> None:
    fake.gate.clear()
    connection = connect(live, path, {**body, "stream": stream})
    expected = body.get("sampling_params", {}).get("n", 1)
    wait_for(lambda: len(fake.submitted) == expected)
    connection.close()
    assert fake.abort_seen.wait(2.0)
    wait_for(lambda: fake.stats().running == 0)
    assert sorted(map(str, fake.aborted)) == sorted(request.rid for request in fake.submitted)
    fake.gate.set()
    assert requests.post(f"{live}/generate", json=LONG, timeout=WAIT).status_code == 200
    assert len(fake.aborted) == expected


def test_a_disconnect_in_mid_stream_aborts(live: str, fake: Any) -> None:
    with requests.post(f"{live}/generate", json={**LONG, "stream": True}, stream=True, timeout=WAIT) as reply:
        lines = reply.iter_lines()
        assert next(lines).startswith(b"data: ")
        fake.gate.clear()
    if fake.stats().running:
        assert fake.abort_seen.wait(2.0)
    wait_for(lambda: fake.stats().running == 0)


def test_events_arrive_as_they_happen(live: str, fake: Any) -> None:
    fake.gate.clear()
    with requests.post(f"{live}/v1/responses", json={"input": "a", "stream": True}, stream=True, timeout=WAIT) as reply:
        lines = reply.iter_lines()
        assert next(lines) == b"event: response.created"  # no token has been made yet
        fake.gate.set()
        assert b"event: response.output_text.delta" in list(lines)


def test_a_refusal_before_the_first_byte_of_a_stream_has_its_own_status(live: str, fake: Any) -> None:
    fake.gate.clear()
    done = threading.Event()
    replies: list[requests.Response] = []

    def post() -> None:
        replies.append(requests.post(f"{live}/generate", json={**LONG, "stream": True}, timeout=WAIT))
        done.set()

    threading.Thread(target=post, daemon=True).start()
    wait_for(lambda: len(fake.submitted) == 1)
    fake.healthy = False
    assert done.wait(WAIT)
    assert replies[0].status_code == 503


def test_many_streams_at_once_keep_apart(live: str) -> None:
    answers: dict[str, str] = {}

    def post(text: str) -> None:
        body = {"text": text, "sampling_params": {"max_new_tokens": 30}, "stream": True}
        reply = requests.post(f"{live}/generate", json=body, timeout=WAIT)
        answers[text] = json.loads(reply.text.split("\n\n")[-3].removeprefix("data: "))["text"]

    texts = [chr(97 + i) * 2 + chr(65 + i) for i in range(16)]
    threads = [threading.Thread(target=post, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    assert answers == {text: (text * 10) for text in texts}


def test_an_oversized_body_is_answered_on_the_wire(live: str) -> None:
    reply = requests.post(f"{live}/generate", data=b"a" * (9 * 2**20), timeout=WAIT)
    assert (reply.status_code, reply.json()["code"]) == (413, 413)
    assert requests.post(f"{live}/generate", json=LONG, timeout=WAIT).status_code == 200


def test_an_address_in_use_is_named() -> None:
    with listening_socket("127.0.0.1", 0) as bound:
        bound.listen()
        port = bound.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}"):
            listening_socket("127.0.0.1", port)


@contextmanager
def served(folder: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that serves the fake engine, and its URL."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVED, str(folder / "conftest.py"), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("gaugeblock engine ready on http://127.0.0.1:")
        yield process, line.split()[4]
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(WAIT)


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_process_quietly(request: Any, sign: signal.Signals) -> None:
    with served(request.path.parent) as (process, url):
        assert requests.post(f"{url}/generate", json=LONG, timeout=WAIT).status_code == 200
        process.send_signal(sign)
        out, err = process.communicate(timeout=WAIT)
        assert (process.returncode, out, err) == (0, "", "")


@pytest.mark.parametrize(("grace", "signals"), [("0.2", 1), ("60", 2)])
def test_a_stream_that_outlives_the_grace_or_a_second_signal_ends_as_aborted(
    request: Any, grace: str, signals: int
) -> None:
    with served(request.path.parent, grace) as (process, url):
        connection = connect(url, "/generate", {**LONG, "stream": True})
        wait_for(lambda: requests.get(f"{url}/get_load", timeout=WAIT).json()[0]["num_reqs"] == 1)
        assert process.stderr is not None
        process.send_signal(signal.SIGTERM)
        assert process.stderr.readline() == f"gaugeblock: 1 request may run on for {grace} s; Ctrl-C ends it now\n"
        if signals == 2:
            process.send_signal(signal.SIGINT)
        received = b"".join(iter(lambda: connection.recv(65536), b""))
        connection.close()
        assert b'"finish_reason":{"type":"abort"' in received
        assert b"data: [DONE]" in received
        out, err = process.communicate(timeout=WAIT)
        assert (process.returncode, out, err) == (0, "", "")
