"""Ctrl-C that strikes where Python drops exceptions ends a run all the same."""

import subprocess
import sys
import textwrap

import pytest

FINALIZER = """
    class Closing:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGINT)
            for _ in range(1000): pass
"""
CALLBACK = """
    def closing(_):
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000): pass

    class Thing: pass

    def Closing():
        thing = Thing()
        kept.append(weakref.ref(thing, closing))
        return thing

    kept = []
"""


def script(where, body):
    return "import os, signal, sys, time, weakref\n" + textwrap.dedent(where) + textwrap.dedent(body)


@pytest.mark.parametrize("where", [FINALIZER, CALLBACK], ids=["finalizer", "weakref callback"])
def test_an_interrupt_that_python_drops_is_raised_again(where):
    body = """
    from gaugeblock.conformance.interrupts import keep_interrupts

    signal.signal(signal.SIGINT, signal.default_int_handler)
    keep_interrupts()
    try:
        Closing()
        time.sleep(60)
        print("slept on")
    except KeyboardInterrupt:
        print("interrupted")
    """
    done = subprocess.run([sys.executable, "-c", script(where, body)], capture_output=True, text=True, timeout=40)
    assert done.stdout.strip() == "interrupted", done.stdout + done.stderr


def test_a_second_interrupt_does_not_strike_while_the_first_is_obeyed():
    body = """
    from gaugeblock.conformance.interrupts import interrupt_once

    interrupt_once()
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)
    except KeyboardInterrupt:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)
        print("obeyed")
    """
    done = subprocess.run([sys.executable, "-c", script("", body)], capture_output=True, text=True, timeout=40)
    assert done.stdout.strip() == "obeyed", done.stdout + done.stderr


def test_a_single_interrupt_that_python_drops_is_raised_again():
    body = """
    from gaugeblock.conformance.interrupts import interrupt_once, keep_interrupts

    keep_interrupts()
    interrupt_once()
    try:
        Closing()
        time.sleep(60)
    except KeyboardInterrupt:
        print("interrupted")
    """
    done = subprocess.run([sys.executable, "-c", script(FINALIZER, body)], capture_output=True, text=True, timeout=40)
    assert done.stdout.strip() == "interrupted", done.stdout + done.stderr


def test_a_run_of_checks_keeps_it_although_pytest_sets_a_hook_of_its_own(tmp_path):
    (tmp_path / "test_it.py").write_text(
        script(FINALIZER, "\ndef test_closing():\n    Closing()\n    time.sleep(60)\n\ndef test_after():\n    pass\n")
    )
    handled = "import signal, sys, pytest; signal.signal(signal.SIGINT, signal.default_int_handler); "
    argv = ["-q", "-p", "no:cacheprovider", "--gb", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-c", handled + f"sys.exit(pytest.main({argv!r}))"],
        capture_output=True,
        text=True,
        timeout=40,
        cwd=tmp_path,
    )
    assert "KeyboardInterrupt" in done.stdout, done.stdout + done.stderr
    assert done.returncode in (2, 3), done.stdout  # pytest's own for an interrupt, or the kit's for a partial run


def test_other_exceptions_reach_the_hook_that_was_there():
    body = """
    from gaugeblock.conformance.interrupts import keep_interrupts

    sys.unraisablehook = lambda dropped: print("seen", dropped.exc_type.__name__)
    keep_interrupts()
    keep_interrupts()

    class Bad:
        def __del__(self):
            raise ValueError

    Bad()
    """
    done = subprocess.run([sys.executable, "-c", script("", body)], capture_output=True, text=True, timeout=40)
    assert done.stdout.split() == ["seen", "ValueError"], done.stdout + done.stderr
