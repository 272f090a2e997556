"""Servers start when they answer, fail with their log, and end with whoever started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gaugeblock.fixtures.errors import EnvironmentFault
from gaugeblock.fixtures.launch import answers, free_port, start_server, stop_all

SERVER = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1"]
PATIENCE = 10.0  # seconds in which an ended process must be gone


def gone(pid: int) -> bool:
    """Whether a process has ended within PATIENCE; a zombie has."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)  # another process's end can only be looked for
    return False


def test_a_server_is_ready_when_it_answers_and_gone_after_its_block(tmp_path: Path) -> None:
    port = free_port()
    with start_server("web", [*SERVER, str(port)], port=port, ready_path="/", log_dir=tmp_path) as server:
        assert answers(server.url, "/")
        assert os.getpgid(server.process.pid) == server.process.pid
        assert server.log == tmp_path / f"web-{port}.log"
        assert "GET / HTTP" in server.tail()
    assert not server.running
    assert not answers(server.url, "/")


def test_readiness_may_be_a_function() -> None:
    port = free_port()
    seen: list[str] = []

    def ready(url: str) -> bool:
        seen.append(url)
        return answers(url, "/")

    with start_server("web", [*SERVER, str(port)], port=port, ready_path=ready) as server:
        assert set(seen) == {server.url}


def test_a_server_that_ends_at_once_fails_with_its_log_and_the_remedy() -> None:
    argv = [sys.executable, "-c", "print('no such model'); raise SystemExit(3)"]
    with pytest.raises(EnvironmentFault, match=r"(?s)exit code 3.*no such model.*give --model"):
        start_server("engine", argv, port=free_port(), remedy="give --model")


def test_a_server_that_never_answers_fails_in_time_and_is_ended() -> None:
    argv = [sys.executable, "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(600)"]
    started = time.monotonic()
    with pytest.raises(EnvironmentFault, match=r"not ready within 0.5 s") as caught:
        start_server("engine", argv, port=free_port(), timeout=0.5)
    assert time.monotonic() - started < PATIENCE
    pid = int(str(caught.value).splitlines()[-1])
    assert gone(pid)


def test_a_missing_program_is_named() -> None:
    with pytest.raises(EnvironmentFault, match="no program 'no-such-router'"):
        start_server("router", ["no-such-router"], port=free_port())


def test_a_server_that_ignores_sigterm_is_killed_with_its_children() -> None:
    script = (
        "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);"
        "print(child.pid, flush=True); time.sleep(600)"
    )
    port = free_port()
    argv = [sys.executable, "-c", script]
    server = start_server("stubborn", argv, port=port, ready_path=lambda url: True)
    deadline = time.monotonic() + PATIENCE
    while not server.tail() and time.monotonic() < deadline:
        time.sleep(0.02)  # the log has no event
    child = int(server.tail())
    server.stop(grace=0.2)
    assert server.process.returncode == -signal.SIGKILL
    assert gone(child)


def test_stop_all_ends_every_server() -> None:
    ports = [free_port(), free_port()]
    servers = [start_server("web", [*SERVER, str(port)], port=port, ready_path="/") for port in ports]
    stop_all()
    assert [server.running for server in servers] == [False, False]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_server_dies_with_its_parent(number: signal.Signals) -> None:
    port = free_port()
    script = (
        "import sys, threading; from gaugeblock.fixtures.launch import start_server\n"
        f"server = start_server('web', [*{SERVER!r}, '{port}'], port={port}, ready_path='/')\n"
        "print(server.process.pid, flush=True)\n"
        "threading.Event().wait(60)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert parent.stdout is not None
    with parent.stdout:
        pid = int(parent.stdout.readline())
    assert answers(f"http://127.0.0.1:{port}", "/")
    parent.send_signal(number)
    parent.wait(PATIENCE)
    assert gone(pid)


def test_a_server_outlives_the_thread_that_started_it() -> None:
    from concurrent.futures import ThreadPoolExecutor

    port = free_port()
    with ThreadPoolExecutor(1) as pool:
        server = pool.submit(start_server, "web", [*SERVER, str(port)], port=port, ready_path="/").result()
    with server:
        assert answers(server.url, "/")
        assert server.running
