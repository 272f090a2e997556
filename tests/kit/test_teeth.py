"""What the matrix says of a fault that its check does not name: what was heard instead, and again at the end."""

import json
from pathlib import Path

import pytest

from gaugeblock.conformance import teeth as matrix
from gaugeblock.conformance.cli.teeth import teeth
from gaugeblock.conformance.verdict import VERDICT
from gaugeblock.fixtures.faults.record import find_fault

FAULT = find_fault("watch-single-sample-alarms")


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

    def run(*checks):
        Scripted.checks = list(checks)
        monkeypatch.setattr(matrix._Nurseries, "mine", lambda self: Scripted())
        code = teeth.main(["--fault", FAULT.id], standalone_mode=False)
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
