"""The state machine of routers: the reference passes for long, and a wrong one is found by a short way."""

from __future__ import annotations

import pytest

from gaugeblock.fixtures.errors import TargetFault
from gaugeblock.fixtures.targets.router import RouterBench, RouterLab
from gaugeblock.fixtures.targets.router_launch import LabConfig, reference_launcher
from gaugeblock.fixtures.targets.router_machine import Runs, run_machine


def run(policy: str, seconds: float, fault: str | None = None, seed: int | None = None) -> Runs:
    bench = RouterBench(reference_launcher(fault))
    lab = bench.lab(LabConfig(policy), fresh=True)

    def anew() -> RouterLab:
        assert lab.reset()
        return lab

    try:
        return run_machine(anew, runs=10_000, steps=25, seconds=seconds, seed=seed)
    finally:
        bench.close()


def test_what_the_runs_came_across_is_told() -> None:
    came = run("session", 3.0)
    assert came.served
    assert "at their home" in came.summary()


def test_a_counterexample_is_short() -> None:
    with pytest.raises(TargetFault, match="has its past and could serve it") as caught:
        run("session", 4.0, "router-leaving-forgets-all-sessions")
    way = str(caught.value).partition("\nafter: ")[2].split("; ")
    assert len(way) <= 8, way  # a session or two, a worker that leaves, and the sessions again


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["session", "cache_aware"])
@pytest.mark.parametrize("seed", range(4))
def test_the_reference_holds_for_long(policy: str, seed: int) -> None:
    assert run(policy, 60.0, seed=seed).served > 200
