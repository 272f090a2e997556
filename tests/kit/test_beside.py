"""A layer that runs in a fork beside the others: one verdict, whatever becomes of the fork."""

import json
import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree

import pytest

from gaugeblock.conformance.beside import FEWEST

pytest_plugins = ["pytester"]

CONFTEST = """
import pytest

@pytest.hookimpl(trylast=True)
def pytest_configure(config):
    config.pluginmanager.get_plugin("gaugeblock-session").apart = "router"
"""
CHECK = """
import os, pathlib, signal, time
from gaugeblock.conformance.check import check
from gaugeblock.fixtures.errors import EnvironmentFault

@check({id!r}, feature="thing", bound="none", gate={gate})
def test_{slug}(record_property):
    '''Title of {id}.

    Look here first.
    '''
    pathlib.Path("ran-by-{id}").write_text(str(os.getpid()))
    record_property("evidence", "seen by {id}")
    {body}
"""
ARGV = [sys.executable, *["-m", "pytest", "--gb", "--import-mode=importlib", "--gb-out", "out", "--junitxml=j.xml"]]
LAYERS = {"kernels": "KER", "router": "RTR"}


@pytest.fixture
def kit(pytester, monkeypatch):
    """A folder with checks of two layers, enough of them for a fork."""
    pytester.makeconftest(CONFTEST)

    class Kit:
        path = pytester.path
        argv = ARGV

        def write(self, each=FEWEST, layers=LAYERS, gate=False, **bodies):
            for layer, prefix in layers.items():
                folder = pytester.path / layer
                folder.mkdir()
                for number in range(each):
                    name = f"{prefix}-{901 + number}"
                    slug = name.lower().replace("-", "_")
                    body = bodies.get(slug, "pass")
                    (folder / f"test_{slug}_made.py").write_text(
                        CHECK.format(id=name, slug=slug, body=body, gate=gate and not number)
                    )

        def run(self):
            result = pytester.run(*self.argv, timeout=60)
            return result.ret, json.loads((pytester.path / "out" / "verdict.json").read_text())

        def ran_by(self, name):
            return int((pytester.path / f"ran-by-{name}").read_text())

    return Kit()


def by_id(verdict):
    return {check["id"]: check for check in verdict["checks"]}


def test_the_fork_has_one_layer_and_all_of_it_is_in_the_verdict(kit):
    kit.write()
    code, verdict = kit.run()
    assert (code, verdict["result"]) == (0, "conformant")
    checks = by_id(verdict)
    assert len(checks) == 2 * FEWEST
    assert kit.ran_by("KER-901") == kit.ran_by("KER-902") != kit.ran_by("RTR-901") == kit.ran_by("RTR-902")
    assert checks["RTR-903"]["evidence"] == ["seen by RTR-903"]
    cases = ElementTree.parse(kit.path / "j.xml").iter("testcase")
    assert len(list(cases)) == 2 * FEWEST


def test_few_checks_stay_in_one_process(kit):
    kit.write(each=FEWEST - 1)
    code, _ = kit.run()
    assert code == 0
    assert kit.ran_by("KER-901") == kit.ran_by("RTR-901")


def test_a_layer_alone_is_shared_and_its_gate_runs_on_both_sides(kit):
    kit.write(each=2 * FEWEST, layers={"router": "RTR"}, gate=True)
    code, verdict = kit.run()
    assert code == 0
    checks = by_id(verdict)
    assert len(checks) == 2 * FEWEST
    assert len({kit.ran_by(name) for name in checks}) == 2
    assert kit.ran_by("RTR-902") != kit.ran_by("RTR-903") != kit.ran_by("RTR-904") == kit.ran_by("RTR-902")
    assert len(list(ElementTree.parse(kit.path / "j.xml").iter("testcase"))) == 2 * FEWEST


def test_a_gate_that_fails_blocks_both_sides(kit):
    kit.write(each=2 * FEWEST, layers={"router": "RTR"}, gate=True, rtr_901="assert 0, 'closed'")
    code, verdict = kit.run()
    assert code == 1
    assert {c["id"]: c["outcome"] for c in verdict["checks"]} == {
        f"RTR-{901 + number}": "blocked" if number else "failed" for number in range(2 * FEWEST)
    }


def test_what_fails_in_the_fork_fails_the_run(kit):
    kit.write(rtr_904="assert 2 + 2 == 5, 'two and two'")
    code, verdict = kit.run()
    assert (code, verdict["result"], verdict["first_failing_layer"]) == (1, "nonconformant", "router")
    assert by_id(verdict)["RTR-904"]["message"].startswith("two and two")
    assert by_id(verdict)["RTR-905"]["outcome"] == "passed"


def test_the_kits_own_trouble_in_the_fork_ends_the_run(kit):
    kit.write(rtr_901="raise EnvironmentFault('no such disk')", ker_910="time.sleep(0.2)")
    code, verdict = kit.run()
    assert (code, verdict["result"], verdict["message"]) == (4, "error", "no such disk")


def test_trouble_in_the_other_layers_ends_the_fork(kit):
    kit.write(ker_901="raise EnvironmentFault('no such disk')", rtr_901="time.sleep(30)")
    begin = time.monotonic()
    code, verdict = kit.run()
    assert (code, verdict["message"]) == (4, "no such disk")
    assert time.monotonic() - begin < 20, "the fork was waited for"
    assert gone(kit.ran_by("RTR-901"))


def test_a_fork_that_dies_is_an_error_and_no_smaller_verdict(kit):
    kit.write(rtr_903="os._exit(3)")
    code, verdict = kit.run()
    assert (code, verdict["result"]) == (4, "error")
    assert "the process that ran the checks of router died" in verdict["message"]


def test_a_parent_that_is_interrupted_takes_its_fork_along(kit):
    kit.write(ker_901="time.sleep(30)", rtr_901="time.sleep(30)")
    process = subprocess.Popen(kit.argv, cwd=kit.path, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        for name in ("KER-901", "RTR-901"):
            wait_for(kit.path / f"ran-by-{name}")
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 3
    finally:
        process.kill()
        process.wait()
    verdict = json.loads((kit.path / "out" / "verdict.json").read_text())
    assert (verdict["result"], verdict["footer"]["complete"]) == ("partial", False)
    assert gone(kit.ran_by("RTR-901"))


SLOW_END = """

def pytest_sessionfinish():
    import time
    time.sleep(1.5)
"""


def test_ctrl_c_at_the_terminal_reaches_the_fork_twice_and_is_still_an_interrupt(kit):
    """It comes from the terminal and again from the parent, here while the fork takes its time to conclude."""
    conftest = kit.path / "conftest.py"
    conftest.write_text(conftest.read_text() + SLOW_END)
    later = "try:\n        time.sleep(30)\n    finally:\n        time.sleep(0.5)"
    kit.write(ker_901=later, rtr_901="time.sleep(30)")
    process = subprocess.Popen(kit.argv, cwd=kit.path, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        for name in ("KER-901", "RTR-901"):
            wait_for(kit.path / f"ran-by-{name}")
        os.killpg(process.pid, signal.SIGINT)
        code = process.wait(30)
    finally:
        process.kill()
        process.wait()
    verdict = json.loads((kit.path / "out" / "verdict.json").read_text())
    assert (code, verdict["result"]) == (3, "partial"), verdict["message"]
    assert verdict["message"].startswith("interrupted")
    assert gone(kit.ran_by("RTR-901"))


def test_a_fork_that_dies_of_an_interrupt_makes_it_no_error(kit):
    kit.write(ker_901="time.sleep(30)", rtr_901="signal.signal(signal.SIGINT, signal.SIG_DFL); time.sleep(30)")
    process = subprocess.Popen(kit.argv, cwd=kit.path, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        for name in ("KER-901", "RTR-901"):
            wait_for(kit.path / f"ran-by-{name}")
        time.sleep(0.5)  # the handler is set behind the file
        process.send_signal(signal.SIGINT)
        code = process.wait(30)
    finally:
        process.kill()
        process.wait()
    verdict = json.loads((kit.path / "out" / "verdict.json").read_text())
    assert (code, verdict["result"]) == (3, "partial"), verdict["message"]


def wait_for(path):
    deadline = time.monotonic() + 30
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < deadline, f"{path.name} was not written"
        time.sleep(0.02)


def gone(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    return False
