"""How a run ends that did not go as planned: its exit code is never 1, which says that a target is wrong."""

import os
import signal
import subprocess
import sys
import time

import pytest

from gaugeblock.conformance.cli import main

PROGRAM = """
import sys
from gaugeblock.conformance.cli import main
from gaugeblock.fixtures.errors import TargetFault

def command(**_):
    {body}

main.cli.main = command
main.run()
"""


def ended(body, **streams):
    """Run the console entry point with a command line that does ``body``."""
    command = [sys.executable, "-c", PROGRAM.format(body=body)]
    streams = {"stdout": subprocess.PIPE, **streams}
    return subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=60, **streams)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("raise TargetFault('http://a broke the connection')", "gaugeblock: http://a broke the connection"),
        ("raise OSError(28, 'No space left on device', 'x.json')", "No space left on device: 'x.json'"),
        ("import torch_that_is_not_here as torch", None),
        ("raise ModuleNotFoundError(name='torch')", "gaugeblock: this needs torch: pip install 'gaugeblock[embedded]'"),
        ("raise ModuleNotFoundError(name='triton')", "gaugeblock: this needs triton: pip install 'gaugeblock[gpu]'"),
        ("raise ValueError('out of range')", None),
        ("sys.exit(0)", None),
        ("sys.exit(1)", None),
    ],
    ids=lambda value: value and value[:40],
)
def test_what_nobody_caught_is_exit_code_4_with_one_line_or_the_place_of_the_error(body, said):
    done = ended(body)
    assert done.returncode == 4, done.stderr
    lines = done.stderr.splitlines()
    if said is None:
        assert "Traceback" in lines[0]
        assert lines[-1].startswith("gaugeblock: an error of the kit's own, please report it with the lines above: ")
    else:
        assert len(lines) == 1
        assert said in lines[0]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="writes to /dev/full")  # noqa: PTH110 # a device
def test_a_full_disk_under_the_output_is_one_line():
    with open("/dev/full", "w") as full:  # noqa: PTH123 # a device
        done = ended("print('a verdict')", stdout=full)
    assert done.returncode == 4
    assert done.stderr.splitlines() == ["gaugeblock: [Errno 28] No space left on device"]


def test_a_reader_that_goes_away_is_no_verdict_and_no_traceback():
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = ended("print('a verdict')", stdout=writing)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (4, "")


def test_closed_output_is_nobodys_error():
    assert ended("return 3", preexec_fn=lambda: os.close(1)).returncode == 3


WAITS = "import time; print('begun', flush=True); time.sleep(60)"
CLEANS = """import time
    try:
        print('begun', flush=True); time.sleep(60)
    finally:
        time.sleep(0.3); print('cleaned', flush=True)"""


def terminated(body, signals=1, background=False):
    """Run the entry point, send SIGTERM when it has begun; return its code and output."""
    ignore = (lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)) if background else None
    command = [sys.executable, "-c", PROGRAM.format(body=body)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=ignore
    ) as process:
        try:
            assert process.stdout.readline() == "begun\n"
            for _ in range(signals):
                process.send_signal(signal.SIGTERM)
                time.sleep(0.1)  # apart, so that the second one strikes while the first one's end is under way
            out, err = process.communicate(timeout=30)
        finally:
            process.kill()
    return process.returncode, out, err


def test_sigterm_is_an_interrupt():
    assert terminated(WAITS) == (3, "", "gaugeblock: interrupted\n")


def test_a_second_sigterm_close_to_the_first_leaves_the_end_alone():
    assert terminated(CLEANS, signals=2) == (3, "cleaned\n", "gaugeblock: interrupted\n")


def test_sigterm_that_python_drops_is_raised_anew_in_a_background_job_too():
    body = """import time

    class Closing:
        def __del__(self):
            print('begun', flush=True)
            end = time.monotonic() + 5
            while time.monotonic() < end: pass

    Closing()
    time.sleep(60)"""
    code, _, err = terminated(body, background=True)
    assert (code, err) == (3, "gaugeblock: interrupted\n")


def test_a_fork_dies_of_sigterm_as_ever():
    body = """import os, signal, time
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, b'.')
        end = time.monotonic() + 40
        while sum(range(10**6)) and time.monotonic() < end: pass
        os._exit(0)
    os.read(reading, 1)
    os.kill(child, signal.SIGTERM)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) + 100"""
    assert ended(body).returncode == 100 - signal.SIGTERM


def test_sigterm_that_the_starter_ignores_stays_ignored(monkeypatch):
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        main.end_on_sigterm()
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)
