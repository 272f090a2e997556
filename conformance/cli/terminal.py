"""What a person sees: progress while the checks run, then one summary to read at a glance."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from gaugeblock.conformance.check import Check
from gaugeblock.conformance.outcome import Outcome
from gaugeblock.conformance.results import Result
from gaugeblock.conformance.verdict import VERDICT

COLOURS = {
    "passed": "green",
    "conformant": "bold green",
    "failed": "bold red",
    "nonconformant": "bold red",
    "error": "bold magenta",
    "blocked": "yellow",
    "inconclusive": "yellow",
    "partial": "yellow",
    "skipped": "yellow",
    "unsupported": "dim",
}
COLUMNS = ("passed", "failed", "blocked", "inconclusive", "skipped", "unsupported", "error")


class Terminal:
    """Writes to standard output; without a terminal behind it there is no live bar, only lines."""

    def __init__(self) -> None:
        self.console = Console(highlight=False)
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self._told: set[tuple[str, str]] = set()  # a check with several variants is told once
        self._task = self._bar.add_task("starting", total=None)

    def started(self, checks: list[Check]) -> None:
        """Show the bar."""
        self._bar.update(self._task, total=len(checks), description="checking")
        self._bar.start()

    def finished(self, result: Result) -> None:
        """Advance the bar; a result worth a look gets its line at once."""
        check = result.check
        self._bar.update(self._task, advance=1, description=f"{check.layer:8s} {check.id}")
        noteworthy = result.outcome in (Outcome.FAILED, Outcome.ERROR, Outcome.INCONCLUSIVE)
        if noteworthy and not result.expected_failure and (check.id, result.target) not in self._told:
            self._told.add((check.id, result.target))
            colour = COLOURS[result.outcome]
            self.console.print(f"[{colour}]{result.outcome:12s}[/] {check.id}  {escape(check.title)}")

    def close(self) -> None:
        """Take the bar away."""
        self._bar.stop()

    def summary(self, verdict: dict[str, Any], out: str | None) -> None:
        """Print layers, failures with evidence and reproduction, and the result as the last line."""
        print_ = self.console.print
        if any(not _is_last_word(check, verdict) for check in verdict["checks"]):
            print_(self._layers(verdict))
            idle = [layer["name"] for layer in verdict["layers"] if layer["outcome"] == "not run"]
            if idle:
                print_(f"not run: {', '.join(idle)}", style="dim")
        self._several(verdict, ("failed", "error"), self._failure)
        self._several(verdict, ("inconclusive", "skipped"), self._note)
        self._grouped(verdict, "blocked", "yellow")
        self._grouped(verdict, "unsupported", "dim")
        if verdict["message"]:
            print_(escape(verdict["message"]), soft_wrap=True)
        if verdict["first_failing_layer"]:
            print_(f"first failing layer: [bold red]{verdict['first_failing_layer']}[/]")
        if out is not None:
            print_(f"written: {Path(out) / VERDICT}, report.html, junit.xml", style="dim")
        ran = len(verdict["checks"])
        print_(f"{ran} check{'s' * (ran != 1)} in {verdict['seconds']:.1f} s", style="dim")
        print_(f"result: [{COLOURS[verdict['result']]}]{verdict['result']}[/]")

    def _layers(self, verdict: dict[str, Any]) -> Table:
        used = [name for name in COLUMNS if name == "passed" or any(x["counts"].get(name) for x in verdict["layers"])]
        table = Table(box=None, pad_edge=False, header_style="dim")
        table.add_column("layer")
        table.add_column("outcome")
        for name in (*used, "seconds"):
            table.add_column(name, justify="right")
        for layer in (layer for layer in verdict["layers"] if layer["outcome"] != "not run"):
            counts = [str(layer["counts"].get(name, "")) for name in used]
            outcome = f"[{COLOURS[layer['outcome']]}]{layer['outcome']}[/]"
            table.add_row(layer["name"], outcome, *counts, f"{layer['seconds']:.1f}")
        return table

    def _several(self, verdict: dict[str, Any], outcomes: tuple[str, ...], show: Any) -> None:
        for check in verdict["checks"]:
            if check["outcome"] in outcomes and not _is_last_word(check, verdict):
                show(check)

    def _failure(self, check: dict[str, Any]) -> None:
        colour = COLOURS[check["outcome"]]
        if check["expected_failure"]:
            self._note({**check, "outcome": "expected failure", "message": check["expected_failure"]})
            return
        self.console.print()
        where = f" on {check['target']}" if check["target"] else ""
        self.console.print(f"[{colour}]{check['outcome']}[/] {check['id']} {escape(check['title'])}{escape(where)}")
        for line in check["message"].splitlines()[:12]:
            self.console.print(f"  {escape(line)}", soft_wrap=True)
        advice = " ".join(check["explanation"].replace("``", "`").split())
        self.console.print(Padding(escape(advice), (0, 0, 0, 2)), style="dim")
        self.console.print(f"  again: {escape(check['reproduce'])}", soft_wrap=True)

    def _note(self, check: dict[str, Any]) -> None:
        line = check["message"].partition("\n")[0]
        self.console.print(f"[yellow]{check['outcome']}[/] {check['id']}: {escape(line)}", soft_wrap=True)

    def _grouped(self, verdict: dict[str, Any], outcome: str, colour: str) -> None:
        """One line a reason that several checks share."""
        checks = [check for check in verdict["checks"] if check["outcome"] == outcome]
        for message, number in Counter(check["message"] for check in checks).items():
            ids = ", ".join(check["id"] for check in checks if check["message"] == message) if number <= 3 else ""
            what = ids or f"{number} checks"
            reason = message.removeprefix(f"{outcome}: ")
            self.console.print(f"[{colour}]{outcome}[/] {what}: {escape(reason)}", soft_wrap=True)


def _is_last_word(check: dict[str, Any], verdict: dict[str, Any]) -> bool:
    """Whether a check only says what ended the run: that is said once, as the verdict's message."""
    return not verdict["footer"]["complete"] and check["message"] == verdict["message"]
