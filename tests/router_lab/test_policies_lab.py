"""What the checks of policies lean on: workers of several models, loads that are not told, homes of keys."""

from __future__ import annotations

import pytest

from gaugeblock.conformance.router.keys import moves, shown
from gaugeblock.fixtures.errors import KitError
from gaugeblock.fixtures.targets.router_launch import LabConfig, launcher, reference_launcher
from gaugeblock.fixtures.targets.router_policies import OwnPolicies
from gaugeblock.fixtures.targets.wire import Limits, Wire
from gaugeblock.fixtures.workers.loop import WorkerLoop
from gaugeblock.fixtures.workers.worker import LOAD_PATHS, ScriptedWorker


def test_a_worker_names_its_model_and_can_keep_its_load_to_itself() -> None:
    loop = WorkerLoop()
    worker = ScriptedWorker("w0", loop, model="other")
    try:
        wire = Wire(worker.url, Limits(2.0, 5.0, 5.0))
        assert wire.call("GET", "/v1/models").json()["data"][0]["id"] == "other"
        assert wire.call("GET", "/get_model_info").json()["served_model_name"] == "other"
        assert [wire.call("GET", path).status for path in LOAD_PATHS] == [200, 200]
        worker.tells_load = False
        assert [wire.call("GET", path).status for path in LOAD_PATHS] == [500, 500]
        worker.reset()
        assert wire.call("GET", LOAD_PATHS[0]).status == 200
    finally:
        worker.close()
        loop.close()


def test_moves_are_counted_by_where_from_and_where_to() -> None:
    moved = moves({"a": "w0", "b": "w0", "c": "w1"}, {"a": "w1", "b": "w0", "c": "w2"})
    assert moved == {("w0", "w1"): 1, ("w1", "w2"): 1}
    assert shown(moved) == "w0 to w1: 1, w1 to w2: 1"
    assert shown(moves({}, {})) == "none"


def test_an_index_of_a_given_size_is_said_in_each_router_s_own_words() -> None:
    argv = reference_launcher().build(LabConfig("cache_aware", index_bytes=4096), ["http://127.0.0.1:1"], 2)
    assert '"cache_bytes": 4096' in argv[-1]


def test_policies_of_the_checks_are_known_to_the_launchers() -> None:
    for name in ("reference", "sglang-router", "smg"):
        known = launcher(name)
        assert ("consistent_hash" in known.policies) == ("consistent-hash" in known.features)
        assert ("power_of_two" in known.policies) == ("power-of-two" in known.features)


def test_own_policies_are_made_by_name() -> None:
    own = OwnPolicies()
    assert own.make("session", {"session_ttl": 3.0}).name == "least_load"
    with pytest.raises(KitError, match="policy"):
        own.make("cache-aware")
