"""What the matrix says of a fault that its check does not name: what was heard instead, and again at the end."""

import json
from dataclasses import replace
from pathlib import Path

import click
import pytest

from gaugeblock.conformance import teeth as matrix
from gaugeblock.conformance.cli.teeth import teeth
from gaugeblock.conformance.verdict import VERDICT
from gaugeblock.fixtures import needs
from gaugeblock.fixtures.faults.record import find_fault, load_faults

FAULT = find_fault("watch-single-sample-alarms")
ON_HOPPER = find_fault("kernels-extend-hopper-no-rescale")


def check(outcome, message, name=FAULT.check, layer=FAULT.layer):
    return {"id": name, "layer": layer, "outcome": outcome, "message": message}


@pytest.fixture
def heard(monkeypatch, capsys):
    """Return what ``teeth --fault`` prints and returns when the faulty run's checks say this."""

    class Scripted:
        def run(self, command, log, timeout):
            verdict = {"checks": self.checks, "footer": {"complete": True}}
            (Path(command[command.index("--out") + 1]) / VERDICT).write_text(json.dumps(verdict))
            return True

    def run(*checks, words=("--fault", FAULT.id)):
        Scripted.checks = list(checks)
        monkeypatch.setattr(matrix._Nurseries, "mine", lambda self: Scripted())
        code = teeth.main(list(words), standalone_mode=False)
        return code, capsys.readouterr().out

    return run


def test_a_killed_fault_is_told_once(heard):
    code, out = heard(check("failed", f"so {FAULT.message} it is"))
    assert (code, out.count(FAULT.id)) == (0, 1)


@pytest.mark.parametrize(
    ("checks", "code", "outcome", "words"),
    [
        (
            [check("inconclusive", "too noisy"), check("passed", "", "HYB-001")],
            1,
            "survived",
            "HYB-062 inconclusive: too noisy",
        ),
        ([check("passed", "")], 1, "survived", "HYB-062 passed"),
        (
            [check("failed", "else"), check("failed", "broken", "HYB-001")],
            1,
            "other",
            "HYB-062 failed: else; HYB-001 failed",
        ),
        ([check("error", "no such file")], 4, "error", "HYB-062 error: no such file"),
        (
            [check("failed", FAULT.message), check("failed", "x", "KER-001", "kernels")],
            1,
            "named",
            "collateral KER-001",
        ),
    ],
    ids=["inconclusive", "passed", "another", "error", "collateral"],
)
def test_the_end_says_what_was_heard_instead(heard, checks, code, outcome, words):
    assert FAULT.check == "HYB-062"
    found, out = heard(*checks)
    end = out.partition("faults killed by")[2]
    assert found == code
    assert f"{outcome:9s}{FAULT.id}" in end
    assert words in end


def test_what_needs_hardware_that_is_not_here_is_named_and_counted_apart(heard, monkeypatch, tmp_path):
    monkeypatch.setattr(needs, "_here", lambda need: False)
    words = ["--fault", FAULT.id, "--fault", ON_HOPPER.id, "--out", str(tmp_path / "kills.json")]
    code, out = heard(check("failed", FAULT.message), words=words)
    assert code == 0
    assert f"not run  {ON_HOPPER.id}  needs a Hopper GPU" in out
    assert "1 of 1 faults killed by the check that names them" in out
    assert " ".join(out.split()).endswith("; not run for lack of the GPU that they need: 1")
    kills = json.loads((tmp_path / "kills.json").read_text())
    assert [fault["id"] for fault in kills["faults"]] == [FAULT.id]
    assert kills["summary"]["not_run"] == {ON_HOPPER.id: "needs a Hopper GPU"}


def test_where_the_hardware_is_they_run_like_the_others(heard, monkeypatch):
    monkeypatch.setattr(needs, "_here", lambda need: need == "hopper")
    killed = check("failed", ON_HOPPER.message, ON_HOPPER.check, ON_HOPPER.layer)
    code, out = heard(killed, words=["--fault", ON_HOPPER.id])
    assert code == 0
    assert "1 of 1 faults killed" in out
    assert "not run" not in out


def test_nothing_that_could_run_is_no_success(heard, monkeypatch):
    monkeypatch.setattr(needs, "_here", lambda need: False)
    code, out = heard(words=["--fault", ON_HOPPER.id])
    assert code == 3
    assert "0 of 0 faults killed" in out


def test_only_what_a_fault_asks_for_can_be_lacking(monkeypatch):
    monkeypatch.setattr(needs, "_here", lambda need: False)
    assert needs.lacking(FAULT) == ""
    assert needs.lacking(replace(FAULT, needs="gpu")) == "needs a GPU"


def test_what_ends_it_early_leaves_the_faults_so_far(heard, monkeypatch, tmp_path):
    out = tmp_path / "kills.json"
    others = [fault for fault in load_faults().values() if fault.check == FAULT.check and fault.needs is None]
    told = []

    def kill_one(fault, scope, nursery):
        told.append(fault.id)
        if len(told) == 2:
            raise KeyboardInterrupt
        return matrix.Kill(fault, "named", [fault.check], [], fault.message, 0.1)

    monkeypatch.setattr(matrix, "kill_one", kill_one)
    words = [word for fault in others[:2] for word in ("--fault", fault.id)]
    with pytest.raises(click.Abort):
        heard(words=[*words, "--jobs", "1", "--out", str(out)])
    kills = json.loads(out.read_text())
    assert kills["footer"] == {"complete": False}
    assert [fault["id"] for fault in kills["faults"]] == told[:1]
