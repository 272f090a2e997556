"""Every check and every mutant of the kernels layer, without pytest: as a dict that a benchmark can attach."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from gaugeblock.conformance.check import Check, load_checks
from gaugeblock.fixtures.faults.record import load_faults, planted
from gaugeblock.fixtures.targets.kernels import load_kernels
from gaugeblock.kernels.bounds import budget_used
from gaugeblock.kernels.contract import Case, Op, Tensors, load_contracts


def run_checks() -> dict[str, list[str]]:
    """Run every check on every op; return the messages of those that failed, by id."""
    results = {check_id: failures(check) for check_id, check in load_checks(("kernels",))[0].items()}
    return {check_id: messages for check_id, messages in results.items() if messages}


def run_mutants() -> dict[str, str]:
    """Run every mutant against the check that it names: ``named``, ``survived``, or the other message it died of."""
    checks = load_checks(("kernels",))[0]
    outcomes = {}
    for fault in load_faults().values():
        if fault.layer != "kernels":
            continue
        with planted(fault.id):
            messages = failures(checks[fault.check])
        named = any(fault.message in message for message in messages)
        outcomes[fault.id] = "named" if named else messages[0] if messages else "survived"
    return outcomes


def failures(check: Check) -> list[str]:
    """Run a check's function for each of its ops; return the messages of the failures."""
    module = importlib.import_module(check.module)
    function = getattr(module, f"test_{check.id.lower().replace('-', '_')}")
    attaches = "record_property" in inspect.signature(function).parameters
    evidence: dict[str, Any] = {"record_property": lambda name, value: None} if attaches else {}
    messages = []
    for op in load_contracts().values():
        if op.name in getattr(module, "OPS", [op.name]):
            try:
                function(kernels=load_kernels(None), op=op, **evidence)
            except Exception as error:  # one failure must not end the run
                messages.append(f"{op.name}: {type(error).__name__}: {str(error)[:500]}")
    return messages


def largest_share(op: Op, case: Case, outputs: Tensors) -> float:
    """Return the largest share of the error budget that an output uses, all on the device."""
    oracle = op.oracle(case)
    bound = op.bound(case, oracle)
    return max(budget_used(outputs[name], oracle[name], bound[name]).max().item() for name in oracle)
