"""A router that runs already: its workers' places are taken over, what it does is found out."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from gaugeblock.fixtures.errors import EnvironmentFault, KitError
from gaugeblock.fixtures.launch import Server, free_port, start_server
from gaugeblock.fixtures.targets.router_launch import LabConfig, reference_launcher
from gaugeblock.fixtures.targets.router_probe import infer
from gaugeblock.fixtures.targets.router_running import RunningBench, parse_workers, running_launcher

TWO = LabConfig(workers=2)


def start(policy: str) -> tuple[Server, tuple[str, ...]]:
    urls = tuple(f"http://127.0.0.1:{free_port()}" for _ in range(3))
    port = free_port()
    argv = reference_launcher().build(LabConfig(policy), list(urls), port)
    return start_server(f"running-{policy}", argv, port=port), urls


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[str, tuple[str, ...]]]:
    server, urls = start("session")
    with server:
        yield server.url, urls


@pytest.fixture
def bench(running: tuple[str, tuple[str, ...]]) -> Iterator[RunningBench]:
    url, workers = running
    bench = RunningBench(running_launcher(url, workers, frozenset({"health"})))
    yield bench
    bench.close()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "names no worker"),
        (" , ", "names no worker"),
        ("http://127.0.0.1", "got 'http://127.0.0.1'"),
        ("https://127.0.0.1:1", "HOST:PORT"),
        ("http://127.0.0.1:99999", "HOST:PORT"),
        ("http://127.0.0.1:1/v1", "HOST:PORT"),
        ("http://127.0.0.1:1,http://127.0.0.1:1/", "twice"),
    ],
)
def test_bad_worker_lists_are_refused(text: str, problem: str) -> None:
    with pytest.raises(KitError, match=problem):
        parse_workers(text)


def test_workers_stand_where_the_router_looks_for_them(bench: RunningBench) -> None:
    lab = bench.lab(LabConfig(), fresh=False)
    assert tuple(worker.url for worker in lab.workers) == bench.launcher.running.workers
    assert len(lab.send("hello").arrivals) == 1


def test_a_smaller_set_up_leaves_workers_down_and_the_next_one_has_them_back(bench: RunningBench) -> None:
    lab = bench.lab(TWO, fresh=False)
    assert [worker.name for worker in lab.workers] == ["w0", "w1"]
    assert {lab.send(f"{n}").worker for n in range(16)} == {"w0", "w1"}
    assert bench.lab(LabConfig(), fresh=False) is lab
    assert len(lab.workers) == 3
    assert {lab.send(f"{n}").worker for n in range(32)} == {"w0", "w1", "w2"}


@pytest.mark.parametrize(
    ("config", "fresh", "reason"),
    [
        (LabConfig(breaker_failures=3), False, "breaker_failures 3"),
        (LabConfig(idle_timeout=1.5), False, "idle_timeout 1.5"),
        (LabConfig(), True, "what the router has learnt"),
        (LabConfig(workers=4), False, "needs 4 workers, --router-workers names 3"),
    ],
)
def test_what_cannot_be_set_up_is_said(bench: RunningBench, config: LabConfig, fresh: bool, reason: str) -> None:
    assert reason in bench.beyond(config, fresh=fresh)


def test_the_plain_set_up_is_in_reach(bench: RunningBench) -> None:
    assert bench.beyond(LabConfig("session"), fresh=False) == ""
    assert bench.beyond(TWO, fresh=False) == ""


def test_sessions_and_endpoints_are_found(bench: RunningBench) -> None:
    found = infer(bench)
    assert found.features.keys() == {
        *("session-affinity", "readiness", "loads", "native-api", "worker-admin", "receipts")
    }
    assert bench.launcher.features == found.features.keys() | {"proxy", "health"}
    assert bench.launcher.receipt_header == "x-gaugeblock-worker"


@pytest.mark.parametrize(
    ("policy", "features", "order"),
    [
        ("round_robin", {"session-affinity"}, "in turn"),
        ("cache_aware", {"session-affinity", "cache-aware", "least-load"}, "mixed"),
        ("least_load", {"session-affinity", "least-load"}, "mixed"),
    ],
)
def test_policies_are_told_apart(policy: str, features: set[str], order: str) -> None:
    server, urls = start(policy)
    with server:
        bench = RunningBench(running_launcher(server.url, urls))
        try:
            found = infer(bench)
        finally:
            bench.close()
    assert found.features.keys() & {"session-affinity", "cache-aware", "least-load"} == features
    assert found.order == order


def test_a_place_that_is_taken_is_named(running: tuple[str, tuple[str, ...]]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"http://127.0.0.1:{other.getsockname()[1]}"
        bench = RunningBench(running_launcher(running[0], (taken,)))
        with pytest.raises(EnvironmentFault, match=f"{taken}: something listens there already"):
            bench.lab(LabConfig(workers=1), fresh=False)
        bench.close()


def test_a_router_that_is_not_there_is_named() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    bench = RunningBench(running_launcher(url, (f"http://127.0.0.1:{free_port()}",)))
    with pytest.raises(EnvironmentFault, match=f"cannot reach the router at {url}"):
        bench.lab(LabConfig(workers=1), fresh=False)
    bench.close()
