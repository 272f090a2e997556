"""Runs of the kit in forks: what they print and return, and that none of them outlives its starter."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from gaugeblock.conformance.nursery import Nursery


def gone(pid, seconds=20.0):
    """Whether a process that is not ours ends in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


@pytest.fixture
def hanging(monkeypatch, tmp_path):
    """A command module that never ends, found before the kit's own; returns the variable that the parent needs."""
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib, time\n"
        "import gaugeblock.conformance.cli.main as main\n"
        "main.run = lambda: (print('begun', flush=True), time.sleep(300))\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path / "log"


def test_runs_have_their_own_output_and_end(tmp_path):
    with Nursery(()) as nursery:
        for name in ("verify", "teeth"):
            assert nursery.run([name, "--help"], tmp_path / name, 60.0)
        assert nursery.run(["nonsense"], tmp_path / "bad", 60.0)
    assert "verify [OPTIONS]" in (tmp_path / "verify").read_text()
    assert "teeth [OPTIONS]" in (tmp_path / "teeth").read_text()
    assert "unknown command 'nonsense'" in (tmp_path / "bad").read_text()


def test_a_run_that_takes_too_long_is_ended_and_the_next_one_works(hanging):
    with Nursery(()) as nursery:
        assert not nursery.run(["verify"], hanging, 3.0)
        assert "begun" in hanging.read_text()
        assert not nursery.run(["verify"], hanging, 0.1)


def test_stopping_ends_the_run_in_hand(hanging):
    nursery = Nursery(())
    waiting = threading.Thread(target=nursery.run, args=(["verify"], hanging, 60.0))
    waiting.start()
    while not hanging.exists() or "begun" not in hanging.read_text():
        time.sleep(0.05)
    child = nursery._child
    nursery.interrupt()
    waiting.join(20.0)
    assert not waiting.is_alive()
    nursery.stop()
    assert gone(child)


def test_nothing_outlives_a_starter_that_is_killed(hanging):
    code = (
        "from pathlib import Path; from gaugeblock.conformance.nursery import Nursery\n"
        "nursery = Nursery(()); print(nursery._process.pid, flush=True)\n"
        f"nursery.run(['verify'], Path({str(hanging)!r}), 99)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as starter:
        parent = int(starter.stdout.readline())
        while not hanging.exists() or "begun" not in hanging.read_text():
            time.sleep(0.05)
        children = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(parent)], capture_output=True, text=True, check=True
        )
        starter.send_signal(signal.SIGKILL)
    assert gone(parent)
    assert [gone(int(child)) for child in children.stdout.split()] == [True]
