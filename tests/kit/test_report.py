"""The page and the terminal say what the verdict says, and let nothing through unescaped."""

import re

import pytest
from rich.console import Console

from gaugeblock.conformance.check import LAYERS, Check
from gaugeblock.conformance.cli.terminal import Terminal
from gaugeblock.conformance.outcome import Outcome
from gaugeblock.conformance.report import render_report
from gaugeblock.conformance.selection import Selection
from gaugeblock.conformance.verdict import Run, build_verdict
from gaugeblock.fixtures.targets.options import TargetOptions


def made_check(check_id, layer, **fields):
    known = {"level": "core", "sources": ("https://example.org/report",), "bound": "exact", "gate": False}
    known |= {"destructive": False, "timeout": 1.0, "module": "x", "title": f"Title of {check_id}", "feature": "thing"}
    return Check(id=check_id, layer=layer, explanation="Look at ``this`` first.", **(known | fields))


@pytest.fixture
def verdict():
    run = Run(TargetOptions(engine_urls=("http://127.0.0.1:9",)), Selection())
    rows = [
        ("KER-001", "kernels", Outcome.PASSED, ""),
        ("ENG-001", "engine", Outcome.FAILED, "expected <b>4</b>, got [red]5[/red]"),
        ("ENG-002", "engine", Outcome.BLOCKED, "blocked: the gate ENG-001 failed"),
        ("ENG-003", "engine", Outcome.BLOCKED, "blocked: the gate ENG-001 failed"),
        ("LOAD-002", "load", Outcome.SKIPPED, "install it"),
    ]
    for check_id, layer, outcome, message in rows:
        result = run.result(made_check(check_id, layer), "http://127.0.0.1:9" if layer == "engine" else "")
        result.add(outcome, message)
        result.evidence.append({"measured": "<script>alert(1)</script>"})
    return build_verdict(run)


def test_page_shows_every_check_and_the_first_failing_layer(verdict):
    page = render_report(verdict)
    for check in verdict["checks"]:
        assert check["id"] in page
    assert 'first failing layer: <b class="failed">engine</b>' in page
    assert verdict["checks"][1]["reproduce"] in page
    assert [name for name in LAYERS if f"<b>{name}</b>" in page] == list(LAYERS)


def test_page_escapes_what_targets_say_and_loads_nothing(verdict):
    page = render_report(verdict)
    assert "<b>4</b>" not in page
    assert "<script" not in page
    assert "<code>this</code>" in page
    assert not re.findall(r'(?:src|href)="(?!https://example\.org/report)[^"]*"', page)
    assert "@import" not in page
    assert "url(" not in page


def test_terminal_names_failures_once_and_ends_with_the_result(verdict, capsys):
    terminal = Terminal()
    terminal.console = Console(width=120, highlight=False)
    terminal.summary(verdict, None)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "result: nonconformant"
    assert lines[1].split()[:2] == ["kernels", "passed"]
    text = "\n".join(lines)
    assert "first failing layer: engine" in text
    assert "expected <b>4</b>, got [red]5[/red]" in text
    assert text.count("ENG-001 Title") == 1
    assert "blocked ENG-002, ENG-003: the gate ENG-001 failed" in text
    assert "gaugeblock verify --check ENG-001 --engine-url http://127.0.0.1:9" in text


def test_terminal_of_a_conformant_run_is_the_layers_and_the_result(capsys):
    run = Run(TargetOptions(), Selection())
    run.result(made_check("KER-001", "kernels"), "").add(Outcome.PASSED, "")
    terminal = Terminal()
    terminal.console = Console(width=120, highlight=False)
    terminal.summary(build_verdict(run), None)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["layer", "outcome", "passed", "seconds"]
    assert lines[1].split() == ["kernels", "passed", "1", "0.0"]
    assert lines[-1] == "result: conformant"
