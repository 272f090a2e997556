"""The verdict: one versioned JSON object that says what was checked, what came of it, and how to see it again."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema

from gaugeblock.conformance.check import LAYERS, Check
from gaugeblock.conformance.outcome import Outcome
from gaugeblock.conformance.results import Result
from gaugeblock.conformance.selection import Selection
from gaugeblock.conformance.versions import version_of
from gaugeblock.fixtures.errors import KitError
from gaugeblock.fixtures.targets.options import TargetOptions

SCHEMA_VERSION = 1
VERDICT = "verdict.json"
EXIT_CODES = {"conformant": 0, "nonconformant": 1, "usage": 2, "partial": 3, "inconclusive": 3, "error": 4}
PACKAGES = ("torch", "triton", "transformers", "pytest", "hypothesis", "numpy")


@dataclass
class Run:
    """What a run has gathered so far. ``abort`` is the one line that says why it could not go on.

    ``failed_gates``: (layer, target) -> check id; ``gone``: a target that died -> the check that saw it.
    ``unwritten`` is the one line that says why a file of the run could not be written.
    """

    options: TargetOptions
    selection: Selection
    targets: dict[str, Any] = field(default_factory=dict)
    results: dict[tuple[str, str], Result] = field(default_factory=dict)
    failed_gates: dict[tuple[str, str], str] = field(default_factory=dict)
    gone: dict[str, str] = field(default_factory=dict)
    core: set[str] = field(default_factory=set)
    abort: str | None = None
    unwritten: str | None = None
    interrupted: bool = False
    foreign_failure: bool = False
    started: float = field(default_factory=time.monotonic)
    seconds: float = 0.0
    verdict: dict[str, Any] | None = None

    def result(self, check: Check, target: str) -> Result:
        """Return the result of a check on a target, made on first use."""
        return self.results.setdefault((check.id, target), Result(check, target))

    def finished(self) -> list[Result]:
        """Results that came to an outcome, lowest layer first."""
        order = list(LAYERS)
        done = [r for r in self.results.values() if r.outcomes]
        return sorted(done, key=lambda r: (order.index(r.check.layer), r.check.id, r.target))


def build_verdict(run: Run) -> dict[str, Any]:
    """Return the verdict as JSON, valid against ``schema/verdict.schema.json``."""
    results = run.finished()
    failing = [r.check.layer for r in results if r.counts_as_failure]
    return {
        "schema_version": SCHEMA_VERSION,
        "kit": {"name": "gaugeblock", "version": version_of("gaugeblock")},
        "target": run.targets or {"embedded": "reference"},
        "environment": _environment(),
        "configuration": {
            **run.options.describe(),
            "layers": [layer for layer in LAYERS if layer in run.selection.layers],
            "checks": sorted(run.selection.ids),
            "level": run.selection.level,
            "skips": run.selection.skips,
            "expected_failures": run.selection.expected_failures,
        },
        "result": _result(run, results),
        "message": run.abort or _remark(run, results),
        "first_failing_layer": failing[0] if failing else None,
        "seconds": round(run.seconds, 3),
        "layers": [_layer(layer, [r for r in results if r.check.layer == layer]) for layer in LAYERS],
        "checks": [_check(r, run.options) for r in results],
        "footer": {"complete": not run.interrupted and run.abort is None, "checks": len(results)},
    }


def _result(run: Run, results: list[Result]) -> str:
    outcomes = {r.outcome for r in results}
    core = {r.outcome for r in results if r.check.level == "core"}
    if run.abort is not None:
        return "error"
    if any(r.counts_as_failure for r in results):
        return "nonconformant"
    if Outcome.ERROR in outcomes:
        return "error"
    if run.interrupted or _missing(run, results) or Outcome.SKIPPED in core or Outcome.BLOCKED in core:
        return "partial"
    if Outcome.INCONCLUSIVE in core or Outcome.PASSED not in outcomes:
        return "inconclusive"
    return "conformant"


def _missing(run: Run, results: list[Result]) -> set[str]:
    return run.core - {r.check.id for r in results}


def _untried(results: list[Result]) -> list[Result]:
    """Core checks for which the user did not name what they need."""
    return [r for r in results if r.untried and r.check.level == "core" and r.outcome is Outcome.UNSUPPORTED]


def _remark(run: Run, results: list[Result]) -> str:
    missing = _missing(run, results)
    untried = _untried(results)
    if run.interrupted:
        return f"interrupted: {len(missing)} core checks did not run"
    if missing:
        return f"{len(missing)} of {len(run.core)} core checks in scope were not selected"
    if untried:
        layer = untried[0].check.layer
        core = [r.outcome for r in results if r.check.level == "core" and r.check.layer == layer]
        made = len(core) - core.count(Outcome.UNSUPPORTED)
        return f"{layer}: {made} of {len(core)} core checks could be made; {untried[0].messages[0]}"
    if not any(r.outcome is Outcome.PASSED for r in results):
        return "no check passed: nothing was shown"
    return ""


def _layer(layer: str, results: list[Result]) -> dict[str, Any]:
    counts = Counter(str(r.outcome) for r in results)
    if any(r.counts_as_failure for r in results):
        outcome = "failed"
    else:
        order = ("error", "blocked", "inconclusive", "passed", "skipped", "unsupported", "failed")
        outcome = next((name for name in order if counts[name]), "not run")
        outcome = "passed" if outcome == "failed" else outcome  # every failure here was an expected one
    return {
        "name": layer,
        "outcome": outcome,
        "counts": dict(sorted(counts.items())),
        "seconds": round(sum(r.seconds for r in results), 3),
    }


def _check(result: Result, options: TargetOptions) -> dict[str, Any]:
    check = result.check
    return {
        "id": check.id,
        "title": check.title,
        "layer": check.layer,
        "feature": check.feature,
        "level": check.level,
        "target": result.target,
        "outcome": str(result.outcome),
        "expected_failure": result.expected_failure if result.outcome is Outcome.FAILED else None,
        "seconds": round(result.seconds, 3),
        "message": "\n".join(result.messages),
        "explanation": check.explanation,
        "bound": check.bound,
        "evidence": result.evidence,
        "reproduce": reproduce(result, options),
        "sources": list(check.sources),
    }


def reproduce(result: Result, options: TargetOptions) -> str:
    """Return the one command that runs this check on this target again; the API key stays in its variable."""
    words = ["gaugeblock", "verify", "--check", result.check.id]
    urls = [result.target] if result.target.startswith("http") else list(options.engine_urls)
    pairs: list[tuple[str, str | None]] = [("--engine-url", url) for url in urls]
    pairs += [
        ("--router-url", options.router_url),
        ("--router-workers", options.router_workers),
        ("--router-cmd", options.router_cmd),
        ("--router", options.router_name),
        ("--kernels", options.kernels),
        ("--kv", options.kv),
        ("--int8", options.int8),
        ("--model", options.model),
        ("--fault", options.fault),
    ]
    for name, value in pairs:
        if value:
            words += [name, value]
    words += ["--router-hosts"] if options.router_hosts else []
    words += [word for claim in sorted(options.claims) for word in ("--claim", claim)]
    if options.api_key is not None:
        words += ["--api-key-env", options.api_key_env]
    if options.request_timeout is not None:
        words += ["--timeout", f"{options.request_timeout:g}"]
    return shlex.join(words)


def _environment() -> dict[str, Any]:
    torch = sys.modules.get("torch")  # asked only if some check has loaded it
    cuda = torch is not None and torch.cuda.is_available()
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "gpu": torch.cuda.get_device_name(0) if torch is not None and cuda else None,
        "packages": {name: version_of(name) for name in PACKAGES},
    }


def schema(name: str) -> dict[str, Any]:
    """Return a shipped JSON Schema, ``verdict`` or ``kills``."""
    text = resources.files("gaugeblock.conformance").joinpath("schema", f"{name}.schema.json").read_text("utf-8")
    data: dict[str, Any] = json.loads(text)
    return data


def write_json(data: dict[str, Any], schema_name: str, path: Path) -> None:
    """Validate against the shipped schema and write atomically: a reader sees all of the file or none.

    Raises:
        KitError: the folder cannot be written.
    """
    jsonschema.validate(data, schema(schema_name))
    temporary = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise KitError(f"cannot write {path}: {error.strerror}; name another folder with --out") from error


def write_outputs(verdict: dict[str, Any], out: str) -> None:
    """Write ``verdict.json`` and ``report.html`` into the folder ``out``.

    Raises:
        KitError: the folder cannot be written.
    """
    from gaugeblock.conformance.report import render_report

    folder = Path(out)
    write_json(verdict, "verdict", folder / VERDICT)
    report = folder / "report.html"
    try:
        report.write_text(render_report(verdict), encoding="utf-8")
    except OSError as error:
        raise KitError(f"cannot write {report}: {error.strerror}; name another folder with --out") from error
