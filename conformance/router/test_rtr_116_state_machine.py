"""RTR-116."""

from __future__ import annotations

import pytest

from gaugeblock.conformance.check import check
from gaugeblock.conformance.engine.evidence import Note
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.fixtures.targets.router import RouterLab
from gaugeblock.fixtures.targets.router_machine import run_machine
from gaugeblock.fixtures.targets.router_running import Unsettled

RUNS, STEPS, SECONDS = 25, 20, 2.5


@check(
    "RTR-116",
    feature="readiness",
    bound="exact, after every call: one generation and one end a request, the home of a session as long as it is well, "
    "and the workers' own count of requests in flight; 3 s for what takes milliseconds",
    sources=(
        "https://github.com/radixark/miles/issues/1334",
        "https://github.com/vllm-project/router/issues/215",
        "https://github.com/vllm-project/aibrix/issues/781",
        "https://github.com/llm-d/llm-d-router/issues/1541",
    ),
    timeout=180.0,
)
@pytest.mark.parametrize("policy", ["session", "cache_aware"])
def test_rtr_116(router_lab: LabFactory, policy: str, note: Note) -> None:
    """Whatever happens to its workers, the router loses no request and doubles none.

    Hypothesis draws traffic, deaths, hangs, recoveries, workers that leave and join, and clients that hang up; after
    each everything is counted again. The message ends with the shortest way to the fault: replay it call by call.
    """
    lab = router_lab(policy, needs=("readiness",), fresh=True)

    def anew() -> RouterLab:
        if not lab.reset():
            raise Unsettled("the router does not see all its workers again after a run")
        return lab

    came = run_machine(anew, runs=RUNS, steps=STEPS, seconds=SECONDS)
    assert came.served, f"no request was answered in {came.calls} calls: nothing was shown"
    note(came.summary())
