"""The kill matrix: plant each fault, run its layer, see which checks fail."""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gaugeblock.conformance.check import LAYERS
from gaugeblock.conformance.nursery import SLOW, Nursery
from gaugeblock.conformance.session import DEPENDS
from gaugeblock.conformance.verdict import VERDICT
from gaugeblock.conformance.versions import version_of
from gaugeblock.fixtures.faults.record import Fault
from gaugeblock.fixtures.needs import lacking

REACH = {"process": ("kernels", "prefill", "kv", "hybrid"), "engine": ("engine", "load"), "router": ("router",)}
"""The layers whose targets live in the process where a fault of each place is planted: no other can feel it."""

SCOPES = {
    "named": "the check that names the fault, and the smoke gates within its reach",
    "layer": "all checks of the layer (a kernel's on the op that it changes), and the smoke gates within its reach",
    "full": "every check of every layer",
}
"""What a planted fault meets."""

FEW = 3  # faults a job that do not pay for imports beforehand

FAULT_TIMEOUT = 300.0  # seconds for one fault's run; a fault that hangs a target must still end


@dataclass(frozen=True)
class Kill:
    """What became of one fault.

    ``outcome``: ``named`` killed by the check that names it, with its message; ``other`` by other checks only;
    ``survived``; or ``error``, the run gave no verdict. ``killed_by``: the failing checks of the fault's layer and of
    those that stand on it. ``collateral``: the failing checks of all other layers. ``message``: of the check that named
    it, else what the failing checks said, or what the named check said when none failed.
    """

    fault: Fault
    outcome: str
    killed_by: list[str]
    collateral: list[str]
    message: str
    seconds: float


def run_matrix(
    faults: list[Fault],
    *,
    scope: str,
    jobs: int,
    done: Callable[[Kill], None] = lambda kill: None,
    broken_off: Callable[[dict[str, Any]], None] = lambda matrix: None,
) -> dict[str, Any]:
    """Run the matrix and return it as JSON, valid against ``schema/kills.schema.json``.

    ``scope`` is one of ``SCOPES``. ``done`` hears of each fault as it ends. When something ends it early, Ctrl-C or an
    exception, ``broken_off`` gets the matrix of the faults so far, whose footer says that it is not complete. A fault
    that needs what this machine lacks is not run, which ``summary.not_run`` says, and counts nowhere else.
    """
    started = time.monotonic()
    not_run = {fault.id: why for fault in faults if (why := lacking(fault))}
    faults = [fault for fault in faults if fault.id not in not_run]
    kills: list[Kill] = []
    nurseries = _Nurseries(SLOW if len(faults) > FEW * jobs else ())
    with ThreadPoolExecutor(jobs) as pool:
        pending = [pool.submit(lambda fault: kill_one(fault, scope, nurseries.mine()), fault) for fault in faults]
        try:
            for future in as_completed(pending):
                kills.append(future.result())
                done(kills[-1])
        except BaseException:
            broken_off(_matrix(kills, not_run, time.monotonic() - started, complete=False))
            raise
        finally:
            for future in pending:
                future.cancel()
            nurseries.stop()
    return _matrix(kills, not_run, time.monotonic() - started)


def kill_one(fault: Fault, scope: str, nursery: Nursery) -> Kill:
    """Run the checks against one planted fault in a process of its own."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="gaugeblock-teeth-") as folder:
        checks, trouble = _checks(fault, folder, scope, nursery)
    seconds = time.monotonic() - started
    failing = [c for c in checks if c["outcome"] == "failed"]
    if not failing:
        trouble = trouble or next((_said(c) for c in checks if c["outcome"] == "error"), "")
    if trouble:
        return Kill(fault, "error", [], [], trouble, seconds)
    related = {fault.layer, *(layer for layer, below in DEPENDS.items() if fault.layer in below)}
    own = [c for c in failing if c["layer"] in related]
    collateral = [c["id"] for c in failing if c["layer"] not in related]
    named = [c for c in own if c["id"] == fault.check and fault.message in c["message"]]
    heard = own or [c for c in checks if c["id"] == fault.check]
    message = named[0]["message"] if named else "; ".join(_said(c) for c in heard)[:500]
    outcome = "named" if named else "other" if own else "survived"
    return Kill(fault, outcome, [c["id"] for c in own], collateral, message, seconds)


class _Nurseries:
    """A process for runs for each thread that asks."""

    def __init__(self, imports: Sequence[str]) -> None:
        self._imports = imports
        self._local = threading.local()
        self._made: list[Nursery] = []

    def mine(self) -> Nursery:
        """Return this thread's."""
        if not hasattr(self._local, "nursery"):
            self._local.nursery = Nursery(self._imports)
            self._made.append(self._local.nursery)
        nursery: Nursery = self._local.nursery
        return nursery

    def stop(self) -> None:
        """End them all, and what they run."""
        for nursery in self._made:
            nursery.interrupt()
        for nursery in self._made:
            nursery.stop()


def _said(check: dict[str, Any]) -> str:
    return f"{check['id']} {check['outcome']}: {check['message']}".removesuffix(": ")


def _checks(fault: Fault, folder: str, scope: str, nursery: Nursery) -> tuple[list[dict[str, Any]], str]:
    """Return the checks of a faulty run, or what kept it from a verdict."""
    command = ["verify", "--fault", fault.id, "--out", folder]
    if scope != "full":
        command += ["--gates-except", fault.layer]
        reached = dict.fromkeys((*REACH[fault.place], fault.layer))
        command += [word for layer in reached for word in ("--layer", layer)]
    elsewhere = fault.layer not in REACH[fault.place]  # all but the named check have their target in another process
    if scope == "named" or (scope == "layer" and elsewhere):
        command += ["--check", fault.check]
    if scope != "full" and (op := _op(fault)):
        command += ["--op", op]
    log = Path(folder) / "log"
    if not nursery.run(command, log, FAULT_TIMEOUT):
        return [], f"no verdict within {FAULT_TIMEOUT:.0f} s"
    path = Path(folder) / VERDICT
    if not path.is_file():
        return [], "no verdict: " + log.read_text(errors="replace").strip()[-300:]
    verdict = json.loads(path.read_text(encoding="utf-8"))
    if not verdict["footer"]["complete"]:
        return [], verdict["message"]
    return verdict["checks"], ""


def _op(fault: Fault) -> str | None:
    """Return the op that a fault of the kernels changes."""
    if fault.layer != "kernels":
        return None
    from gaugeblock.fixtures.targets.kernels import op_of

    return op_of(fault.id)


def _scores(kills: list[Kill]) -> dict[str, dict[str, int]]:
    """Return the mutation score of each op: mutants, and those killed by the check that names them."""
    scores: dict[str, Counter[str]] = {}
    for kill in kills:
        if kill.fault.layer == "kernels":
            score = scores.setdefault(_op(kill.fault) or "shared", Counter(faults=0, named=0))
            score.update(faults=1, named=int(kill.outcome == "named"))
    return {op: dict(score) for op, score in sorted(scores.items())}


def _matrix(kills: list[Kill], not_run: dict[str, str], seconds: float, complete: bool = True) -> dict[str, Any]:
    kills = sorted(kills, key=lambda kill: (list(LAYERS).index(kill.fault.layer), kill.fault.id))
    counts = Counter(kill.outcome for kill in kills)
    by_layer = {
        layer: {
            "faults": sum(k.fault.layer == layer for k in kills),
            "named": sum(k.fault.layer == layer and k.outcome == "named" for k in kills),
        }
        for layer in LAYERS
    }
    return {
        "schema_version": 1,
        "kit": {"name": "gaugeblock", "version": version_of("gaugeblock")},
        "faults": [
            {
                "id": kill.fault.id,
                "layer": kill.fault.layer,
                "title": kill.fault.title,
                "source": kill.fault.source,
                "expected_check": kill.fault.check,
                "expected_message": kill.fault.message,
                "outcome": kill.outcome,
                "killed_by": kill.killed_by,
                "collateral": kill.collateral,
                "message": kill.message,
                "seconds": round(kill.seconds, 2),
            }
            for kill in kills
        ],
        "summary": {
            "faults": len(kills),
            **{name: counts[name] for name in ("named", "other", "survived", "error")},
            "collateral": sum(bool(kill.collateral) for kill in kills),
            "by_layer": by_layer,
            "by_op": _scores(kills),
            "not_run": not_run,
            "seconds": round(seconds, 1),
        },
        "footer": {"complete": complete},
    }
