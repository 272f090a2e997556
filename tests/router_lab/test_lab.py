"""The lab: its router sees its workers, and nothing of one check is left for the next."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from gaugeblock.fixtures.targets.router import RouterBench
from gaugeblock.fixtures.targets.router_launch import LabConfig, RouterLauncher, command_launcher, reference_launcher
from gaugeblock.fixtures.workers.script import Answer

TWO = LabConfig(workers=2)


@pytest.fixture(scope="module")
def bench() -> Iterator[RouterBench]:
    bench = RouterBench(reference_launcher())
    yield bench
    bench.close()


def test_a_request_is_found_again_at_its_worker(bench: RouterBench) -> None:
    lab = bench.lab(TWO, fresh=False)
    sent = [lab.send("the same words") for _ in range(4)]
    assert [len(one.arrivals) for one in sent] == [1, 1, 1, 1]
    assert sorted(one.worker for one in sent) == ["w0", "w0", "w1", "w1"]
    assert lab.counts() == {"w0": 2, "w1": 2}


def test_a_lab_is_kept_for_its_configuration_and_new_when_fresh(bench: RouterBench) -> None:
    lab = bench.lab(TWO, fresh=False)
    assert bench.lab(TWO, fresh=False) is lab
    fresh = bench.lab(TWO, fresh=True)
    assert fresh.server.port != lab.server.port
    bench.end_check()
    assert not fresh.server.running
    assert lab.server.running


def test_the_next_check_finds_living_workers_without_a_past(bench: RouterBench) -> None:
    lab = bench.lab(TWO, fresh=False)
    lab.workers[0].kill()
    lab.workers[1].always(Answer(status=500))
    assert lab.send("nobody can").reply.status >= 500
    again = bench.lab(TWO, fresh=False)
    assert again is lab
    assert lab.arrivals() == ()
    assert [lab.send("well again").reply.status for _ in range(2)] == [200, 200]


def test_workers_that_a_busy_machine_holds_up_stay_in_rotation(bench: RouterBench) -> None:
    """Health checks gave up after half a second twice: with a hundred clients' threads beside it a worker was out."""
    lab = bench.lab(TWO, fresh=False)
    lab.loop.call(lambda: time.sleep(2.0))  # none of the workers answers anything meanwhile
    assert lab.readiness().json()["available_workers"] == 2


def test_a_router_that_died_is_replaced(bench: RouterBench) -> None:
    lab = bench.lab(TWO, fresh=False)
    lab.server.stop()
    replacement = bench.lab(TWO, fresh=False)
    assert replacement is not lab
    assert replacement.send("hello").reply.status == 200


def test_gates_are_opened_for_the_next_check(bench: RouterBench) -> None:
    lab = bench.lab(TWO, fresh=False)
    gate = lab.gate()
    lab.workers[0].always(Answer(frame_hold=gate))
    lab.workers[1].always(Answer(frame_hold=gate))
    with lab.open_stream() as (exchange, _):
        next(exchange.pieces())
    lab = bench.lab(TWO, fresh=False)
    assert lab.send("not held", stream=True).reply.body.endswith(b"data: [DONE]\n\n")


def test_a_router_without_readiness_is_ready_when_it_serves() -> None:
    reference = reference_launcher()
    plain = command_launcher("router {worker_urls} {port}")
    bench = RouterBench(RouterLauncher("plain", plain.features, plain.policies, reference.build))
    try:
        lab = bench.lab(TWO, fresh=False)
        assert lab.send("first").reply.status == 200
        assert sum(lab.counts().values()) == 1
    finally:
        bench.close()
